/* pair: malloc and free of one size, nothing else alive: the length of the two fast paths.
 * Size: --size (64 B unless told), 16 B to 32 KiB in the runner. Never reads what it stored.
 * Idea: the inner loop of glibc's bench-malloc-simple. */
#include "common.h"

static void run(worker *w)
{
    size_t size = options.size;
    for (uint64_t n; (n = worker_grant(w, 4096)); w->done += n)
        for (uint64_t i = 0; i < n; i++)
            free(block_new(size));
}

const workload bench_workload = {
    .name = "pair", .purpose = "malloc and free of one size.", .run = run, .allocations_per_operation = 1,
    .defaults = {.threads = 1, .operations = 10000000, .size = 64}};
