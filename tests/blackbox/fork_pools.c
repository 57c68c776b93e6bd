/* Explicit pools across a fork: threads take and give blocks of LOCKED pools and ask for statistics without end, and each child uses all of
 * these pools. Twenty thousand pools more make a fork no dearer. Argument: children. */
#include <poolmalloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "check.h"
#include "process.h"
#include "threads.h"

enum { THREADS = 3, POOLS = 2, MANY = 20000, TIMED = 15 };

static pm_pool *pools[POOLS];
static atomic_bool stop;

static pm_pool *pool_make(void)
{
    pm_pool_options options = {.struct_size = sizeof options, .block_size = 64, .sharing = PM_SHARING_LOCKED};
    pm_pool *pool = pm_pool_create(&options);
    CHECK(pool != NULL);
    return pool;
}

static void *use_pools(void *number)
{
    pm_pool *pool = pools[(uintptr_t)number % POOLS];
    pm_pool_stats stats = {.struct_size = sizeof stats};
    while (!atomic_load(&stop)) {
        void *a = pm_pool_alloc(pool), *b = pm_pool_alloc(pool);
        CHECK(a && b && a != b);
        pm_pool_free(pool, a);
        pm_pool_free(pool, b);
        if (number == NULL)
            pm_pool_stats_get(pool, &stats);
    }
    return NULL;
}

static void child_run(void)
{
    void *blocks[500];
    pm_pool_stats stats = {.struct_size = sizeof stats};
    alarm(HANG_SECONDS);
    for (int i = 0; i < POOLS; i++) {
        for (int j = 0; j < 500; j++)
            CHECK((blocks[j] = pm_pool_alloc(pools[i])) != NULL);
        for (int j = 0; j < 500; j++)
            pm_pool_free(pools[i], blocks[j]);
        pm_pool_stats_get(pools[i], &stats);
        CHECKF(stats.used <= 2 * THREADS, "%zu blocks in use", stats.used);
        pm_pool_reset(pools[i]);
        pm_pool_stats_get(pools[i], &stats);
        CHECK(stats.used == 0);
    }
    pm_check();
    _exit(0);
}

static void nothing(void) { _exit(0); }

/* The best of some: what a busy machine adds is left out. */
static double fork_seconds(void)
{
    double best = 1e9;
    for (int i = 0; i < TIMED; i++) {
        double before = seconds_now();
        child_succeeds(nothing);
        double took = seconds_now() - before;
        best = took < best ? took : best;
    }
    return best;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < POOLS; i++)
        pools[i] = pool_make();
    for (uintptr_t i = 0; i < THREADS; i++)
        threads[i] = thread_start(use_pools, (void *)i);
    for (long i = argument(argc, argv, 1, 200); i > 0; i--)
        child_succeeds(child_run);
    atomic_store(&stop, true);
    for (int i = 0; i < THREADS; i++)
        thread_join(threads[i]);
    double few = fork_seconds();
    for (int i = 0; i < MANY; i++)
        pool_make();
    double many = fork_seconds();
    printf("fork and wait: %.0f us; with %d pools more %.0f us\n", few * 1e6, MANY, many * 1e6);
    CHECKF(many < few * 4 + 0.005, "%d pools make a fork %.1f ms, from %.1f", MANY, many * 1e3, few * 1e3);
    return 0;
}
