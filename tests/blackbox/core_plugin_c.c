/* A plugin in C with pools of its own, which can be unloaded (C++'s shared variables keep theirs loaded). It leaves a pool, an
 * arena and their blocks behind. */
#include <poolmalloc.h>

#include <pthread.h>
#include <string.h>

int plugin_use(void);

static void *use_pool(void *pool)
{
    void *p = pm_pool_alloc(pool);
    memset(p, 1, 64);
    return p;
}

int plugin_use(void)
{
    pm_pool_options options = {.struct_size = sizeof options, .block_size = 64};
    pm_pool *left = pm_pool_create(&options), *ended = pm_pool_create(&options);
    pm_arena *arena = pm_arena_create(NULL, 0);
    pthread_t thread;
    void *p = NULL;
    for (int i = 0; i < 3000; i++)
        use_pool(i % 2 ? left : ended);
    pthread_create(&thread, NULL, use_pool, left);
    pthread_join(thread, &p);
    pm_pool_destroy(ended);
    pm_trim();
    return p && pm_pool_of(p) == left && pm_arena_alloc(arena, 300, 16);
}
