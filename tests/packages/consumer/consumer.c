/* A user's program in C, with functions that happen to be named as ones inside the library. */
#include <poolmalloc.h>

#include <stdio.h>

int slab_take(void);
int text_size(void);
int slab_take(void) { return 1; }
int text_size(void) { return 2; }

int main(void)
{
    PM_POOL_AUTO pm_pool *pool =
        pm_pool_create(&(pm_pool_options){.struct_size = sizeof(pm_pool_options), .block_size = 100});
    void *block = pm_pool_alloc(pool);
    pm_pool_free(pool, block);
    printf("%s %d\n", pm_version(), block ? slab_take() + text_size() : 0);
    return 0;
}
