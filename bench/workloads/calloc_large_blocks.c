/* calloc_large_blocks: zeroed tables of which little is used: hash tables, sparse arrays.
 * Sizes: 4 to 256 KiB, log-uniform; 64 live. Each block's zeros are checked in three places, and
 * one page in eight is written, so an allocator that knows its fresh memory is zero gains.
 * Idea: large calloc in mstress; sparse use as in interpreters' hash tables. */
#include "common.h"

enum { LIVE = 64, STRIDE = 8 * 4096 };

static char *table_new(uint64_t *random)
{
    size_t size = options.size ? options.size : random_size(random, 4096, 6);
    char *table = calloc(size / 16, 16);
    if (!table)
        bench_fail("out of memory");
    if (table[0] || table[size / 2] || table[size / 16 * 16 - 1])
        bench_fail("calloc gave memory that is not zero");
    for (size_t at = 0; at < size / 16 * 16; at += STRIDE)
        table[at] = 1;
    table[size / 2] = 1;
    return table;
}

static void run(worker *w)
{
    char *live[LIVE] = {NULL};
    for (uint64_t n; (n = worker_grant(w, 64)); w->done += n)
        for (uint64_t i = 0; i < n; i++) {
            char **slot = &live[random_below(&w->random, LIVE)];
            free(*slot);
            *slot = table_new(&w->random);
        }
    for (unsigned i = 0; i < LIVE; i++)
        free(live[i]);
}

const workload bench_workload = {
    .name = "calloc_large_blocks", .purpose = "Zeroed tables of 4 to 256 KiB, sparsely used.",
    .run = run, .allocations_per_operation = 1, .defaults = {.threads = 1, .operations = 50000}};
