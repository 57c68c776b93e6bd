/* churn: random replacement in a live set; now and then the set moves to another thread and the
 * thread that held it dies, so blocks are freed far from where they were born.
 * Sizes: 16 to 1024 B, log-uniform; 4096 live blocks a thread, but at most 8192 in all, so that more
 * threads do not mean a larger live set. Never reads what it stored.
 * Idea: larson (Larson and Krishnan, ISMM 1998), a server whose threads come and go. */
#include "common.h"

#include <pthread.h>
#include <stdatomic.h>

enum { LIVE = 4096, LIVE_ALL = 8192, SIZES = 1 << 14, GENERATIONS_ALL = 16 };

typedef struct live_set { void *block[LIVE]; } live_set;

static uint16_t sizes[SIZES];                   /* drawn once: drawing is no part of the measure */
static _Atomic(live_set *) left_behind;         /* the set that the last ended generation gave up */
static pthread_once_t sizes_once = PTHREAD_ONCE_INIT;

static unsigned share_at_most(unsigned most, unsigned all)
{
    unsigned share = all / options.threads;
    return share > most ? most : share ? share : 1;
}

static void sizes_draw(void)
{
    uint64_t random = 42;
    for (unsigned i = 0; i < SIZES; i++)
        sizes[i] = (uint16_t)(options.size ? options.size : random_size(&random, 16, 6));
}

/* One thread's life: takes the set that another left, replaces its blocks, leaves it behind. */
static void *generation_run(void *argument)
{
    worker *w = argument;
    unsigned live = share_at_most(LIVE, LIVE_ALL);
    live_set *set = atomic_exchange(&left_behind, NULL);
    if (!set)
        set = memory_map(sizeof *set);
    for (uint64_t n; (n = worker_grant(w, 1024)); w->done += n)
        for (uint64_t i = 0; i < n; i++) {
            uint64_t r = random_next(&w->random);
            void **slot = &set->block[(r >> 20) % live];
            free(*slot);
            *slot = block_new(sizes[(r >> 40) % SIZES]);
        }
    live_set *other = atomic_exchange(&left_behind, set);
    for (unsigned i = 0; other && i < live; i++)
        free(other->block[i]);
    return NULL;
}

static void run(worker *w)
{
    pthread_once(&sizes_once, sizes_draw);
    uint64_t total = w->quota;
    unsigned generations = share_at_most(GENERATIONS_ALL / 2, GENERATIONS_ALL);
    for (unsigned g = 0; g < generations; g++) {
        pthread_t thread;
        w->quota = w->done + share_of(total, g, generations);
        if (pthread_create(&thread, NULL, generation_run, w))
            bench_fail("cannot create a thread");
        pthread_join(thread, NULL);
    }
}

const workload bench_workload = {
    .name = "churn", .purpose = "Random replacement in live sets that wander between short-lived threads.",
    .run = run, .allocations_per_operation = 1, .defaults = {.threads = 1, .operations = 5000000}};
