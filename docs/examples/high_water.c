/* A pool that tells when it fills up: the callback runs once each time that the use rises to high_water. */
#include <poolmalloc.h>

#include <stdio.h>

typedef struct bell {
    unsigned rung;
} bell;

/* In the thread that allocates, with no lock held: it may use the pool. */
static void bell_ring(pm_pool *pool, void *context)
{
    bell *b = context;
    pm_pool_stats stats = {.struct_size = sizeof stats};
    pm_pool_stats_get(pool, &stats);
    printf("%zu of %zu sessions are in use\n", stats.used, stats.capacity);
    b->rung++;
}

int main(void)
{
    bell door = {0};
    PM_POOL_AUTO pm_pool *sessions = pm_pool_create(&(pm_pool_options){
        .struct_size = sizeof(pm_pool_options),
        .name = "sessions",
        .block_size = 256,
        .max_blocks = 100,
        .sharing = PM_SHARING_LOCKED,
        .high_water = 80,
        .on_high_water = bell_ring,
        .context = &door,
    });
    void *session[90];
    for (int day = 0; sessions && day < 3; day++) {
        for (int i = 0; i < 90; i++)
            session[i] = pm_pool_alloc(sessions);
        pm_pool_free_bulk(sessions, session, 90);
    }
    return door.rung == 3 ? 0 : 1;
}
