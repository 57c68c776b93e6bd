/* wave: 100,000 blocks are made, then all are freed in an order drawn once, and again: what leaves the allocator's short ways and
 * comes back, in an order that has nothing to do with addresses.
 * one: 64 B, or --size. mixed: 16 to 1015 B. big: 4 to 32 KiB, 5,000 blocks. Uniform, the same sequence in each wave. fifo, lifo: as
 * one, freed in the order in which they were made, or backwards. Never reads what it stored.
 * Idea: a request's or a frame's objects, dropped as a whole through a hash table. */
#include "common.h"

enum { WAVE = 100000, WAVE_BIG = 5000 };

typedef struct wave {
    unsigned count, order[WAVE];
    uint16_t size[WAVE];
    void *block[WAVE];
} wave;

static uint16_t size_draw(uint64_t *random)
{
    if (variant_is("mixed"))
        return (uint16_t)(16 + random_below(random, 1000));
    if (variant_is("big"))
        return (uint16_t)(4096 + random_below(random, 28 << 10));
    return (uint16_t)options.size;
}

static void wave_init(wave *v, uint64_t *random)
{
    v->count = variant_is("big") ? WAVE_BIG : WAVE;
    for (unsigned i = 0; i < v->count; i++) {
        v->size[i] = size_draw(random);
        unsigned j = (unsigned)random_below(random, i + 1); /* a place among those before it, whose number moves here */
        v->order[i] = v->order[j];
        v->order[j] = i;
    }
    for (unsigned i = 0; i < v->count && (variant_is("fifo") || variant_is("lifo")); i++)
        v->order[i] = variant_is("fifo") ? i : v->count - 1 - i;
}

static void run(worker *w)
{
    wave *v = memory_map(sizeof *v);
    wave_init(v, &w->random);
    for (uint64_t n; (n = worker_grant(w, v->count)); w->done += n) {
        for (unsigned i = 0; i < v->count; i++)
            v->block[i] = block_new(v->size[i]);
        for (unsigned i = 0; i < v->count; i++)
            free(v->block[v->order[i]]);
    }
}

static const char *const variants[] = {"one", "mixed", "big", "fifo", "lifo", NULL};
const workload bench_workload = {
    .name = "wave", .purpose = "Many blocks made, then all freed, and again. --size up to 65535.",
    .run = run, .allocations_per_operation = 1, .variants = variants,
    .defaults = {.threads = 1, .operations = 5000000, .size = 64}};
