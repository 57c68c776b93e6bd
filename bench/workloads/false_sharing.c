/* false_sharing: does the allocator put blocks of two threads on one cache line?
 * active: each thread allocates a small block, writes it many times, frees it, again and again.
 * passive: as active, but each thread starts by freeing a block that the main thread allocated
 * next to the others' blocks; an allocator that hands it right back shares the line for ever.
 * Size: 8 B. Never reads what it stored.
 * Idea: cache-thrash and cache-scratch (Berger et al., Hoard, ASPLOS 2000). */
#include "common.h"

#include <pthread.h>

enum { WRITES = 400 }; /* per block: enough for a shared line to outweigh the pair of calls */

static void *handed[THREADS_MAX];
static pthread_once_t handed_once = PTHREAD_ONCE_INIT;

static void handed_allocate(void)
{
    for (unsigned i = 0; i < options.threads; i++)
        handed[i] = block_new(options.size);
}

static void run(worker *w)
{
    if (variant_is("passive")) {
        pthread_once(&handed_once, handed_allocate);
        free(handed[w->id]);
    }
    for (uint64_t n; (n = worker_grant(w, 256)); w->done += n)
        for (uint64_t i = 0; i < n; i++) {
            volatile char *block = block_new(options.size);
            for (int k = 0; k < WRITES; k++)
                block[k & 7] = (char)k;
            free((void *)block);
        }
}

static const char *const variants[] = {"passive", "active", NULL};
const workload bench_workload = {
    .name = "false_sharing", .purpose = "Threads write small blocks that may share cache lines.",
    .run = run, .allocations_per_operation = 1, .variants = variants,
    .defaults = {.threads = 2, .operations = 1000000, .size = 8}};
