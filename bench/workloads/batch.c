/* batch: allocate 1000 blocks, then free them in order, in reverse, or at random: how free lists
 * and slabs take each order, and what the next batch gets from it.
 * Sizes: 16 to 256 B, uniform in steps of 16, the same sequence each time. Never reads what it stored.
 * Idea: bench-malloc-simple's many-blocks runs, and the orders of jemalloc's stress tests. */
#include "common.h"

enum { BATCH = 1000 };

typedef struct batch { void *block[BATCH]; uint16_t size[BATCH], order[BATCH]; } batch;

static void order_shuffle(batch *b, uint64_t *random)
{
    for (unsigned i = BATCH - 1; i > 0; i--) {
        unsigned j = (unsigned)random_below(random, i + 1);
        uint16_t swap = b->order[i];
        b->order[i] = b->order[j], b->order[j] = swap;
    }
}

static void batch_init(batch *b, uint64_t *random)
{
    for (unsigned i = 0; i < BATCH; i++) {
        b->size[i] = (uint16_t)(options.size ? options.size : 16 * (1 + random_below(random, 16)));
        b->order[i] = (uint16_t)(variant_is("lifo") ? BATCH - 1 - i : i);
    }
    if (variant_is("random"))
        order_shuffle(b, random);
}

static void run(worker *w)
{
    batch *b = memory_map(sizeof *b);
    batch_init(b, &w->random);
    for (uint64_t n; (n = worker_grant(w, BATCH)); w->done += n) {
        for (unsigned i = 0; i < BATCH; i++)
            b->block[i] = block_new(b->size[i]);
        for (unsigned i = 0; i < BATCH; i++)
            free(b->block[b->order[i]]);
    }
}

static const char *const variants[] = {"fifo", "lifo", "random", NULL};
const workload bench_workload = {
    .name = "batch", .purpose = "1000 blocks allocated, then freed in order, in reverse or at random.",
    .run = run, .allocations_per_operation = 1, .variants = variants,
    .defaults = {.threads = 1, .operations = 5000000}};
