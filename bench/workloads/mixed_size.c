/* mixed_size: random replacement of blocks whose sizes follow a power law.
 * half:   16 B to 64 KiB, density 1/size: as many blocks in each octave, so half of the bytes lie
 *         beyond 32 KiB. Forwarding to the next allocator is part of the measure.
 * beyond: 33 to 128 KiB, all beyond the pools: what the interposer adds to the next allocator.
 * 512 live blocks a thread, each written at both ends and once a page. Never reads what it stored.
 * Idea: the power-law sizes of mstress and rptest. */
#include "common.h"

enum { LIVE = 512, PAGE = 4096 };

static size_t size_draw(uint64_t *random)
{
    if (options.size)
        return options.size;
    return variant_is("half") ? random_size(random, 16, 12) : (33U << 10) + (size_t)random_below(random, 95 << 10);
}

static void run(worker *w)
{
    void **live = memory_map(LIVE * sizeof *live);
    for (uint64_t n; (n = worker_grant(w, 256)); w->done += n)
        for (uint64_t i = 0; i < n; i++) {
            void **slot = &live[random_below(&w->random, LIVE)];
            size_t size = size_draw(&w->random);
            free(*slot);
            *slot = block_new(size);
            for (size_t at = PAGE; at < size; at += PAGE)
                ((volatile char *)*slot)[at] = 1;
        }
    for (unsigned i = 0; i < LIVE; i++)
        free(live[i]);
}

static const char *const variants[] = {"half", "beyond", NULL};
const workload bench_workload = {
    .name = "mixed_size", .purpose = "Power-law sizes; a part or all of them beyond the pools.",
    .run = run, .allocations_per_operation = 1, .variants = variants,
    .defaults = {.threads = 1, .operations = 1000000}};
