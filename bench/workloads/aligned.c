/* aligned: posix_memalign and aligned_alloc in a live set, as for vectors, cache lines and I/O pages.
 * Alignments 16 B to 4 KiB, each as likely; sizes one to four times the alignment, at most 8 KiB.
 * Never reads what it stored; the addresses themselves are checked.
 * Idea: the aligned part of mimalloc's stress tests. */
#include "common.h"

enum { LIVE = 512 };

static void *aligned_new(uint64_t r)
{
    size_t alignment = (size_t)16 << r % 9, size = alignment * (1 + (r >> 8) % 4);
    void *block = NULL;
    if (size > 8192)
        size = 8192;
    if (r & 1 << 16)
        block = aligned_alloc(alignment, size);
    else if (posix_memalign(&block, alignment, size))
        block = NULL;
    if ((uintptr_t)block % alignment)
        bench_fail("a block is not aligned");
    return block_written(block, size);
}

static void run(worker *w)
{
    void **live = memory_map(LIVE * sizeof *live);
    for (uint64_t n; (n = worker_grant(w, 256)); w->done += n)
        for (uint64_t i = 0; i < n; i++) {
            uint64_t r = random_next(&w->random) >> 16;
            void **slot = &live[(r >> 20) % LIVE];
            free(*slot);
            *slot = aligned_new(r);
        }
    for (unsigned i = 0; i < LIVE; i++)
        free(live[i]);
}

const workload bench_workload = {
    .name = "aligned", .purpose = "Aligned blocks, 16 B to 4 KiB, replaced at random.",
    .run = run, .allocations_per_operation = 1, .defaults = {.threads = 1, .operations = 2000000}};
