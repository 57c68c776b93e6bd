/* large: random replacement in a live set of large blocks: images, tables, buffers of files.
 * Sizes: 100 KiB to 25 MiB, log-uniform; 110 live blocks, about 500 MiB.
 * edges:   the first and the last word are written: what a block costs is its place.
 * touched: one word a page too: who gives pages back at once has them to get again.
 * Idea: the large-object test of Daan Leijen's allocator benchmarks. */
#include "common.h"

enum { LIVE = 110, SIZE_LEAST = 100 << 10, OCTAVES = 8, PAGE = 4 << 10 };

static void *large_new(size_t size, bool touched)
{
    char *block = block_new(size);
    for (size_t at = PAGE; touched && at < size; at += PAGE)
        block[at] = 1;
    return block;
}

static void run(worker *w)
{
    void **live = memory_map(LIVE * sizeof *live);
    bool touched = variant_is("touched");
    for (uint64_t n; (n = worker_grant(w, 16)); w->done += n)
        for (uint64_t i = 0; i < n; i++) {
            void **slot = &live[random_below(&w->random, LIVE)];
            free(*slot);
            *slot = large_new(options.size ? options.size : random_size(&w->random, SIZE_LEAST, OCTAVES), touched);
        }
    for (unsigned i = 0; i < LIVE; i++)
        free(live[i]);
}

static const char *const variants[] = {"edges", "touched", NULL};
const workload bench_workload = {
    .name = "large", .purpose = "Random replacement of blocks of 100 KiB to 25 MiB.",
    .run = run, .allocations_per_operation = 1, .variants = variants,
    .defaults = {.threads = 1, .operations = 20000}};
