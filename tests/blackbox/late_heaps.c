/* Threads whose first call comes in the C library's last round of destructors, when nobody will tell the allocator of their end: what
 * they had is found all the same. Others do nothing but free. Argument: threads, one at a time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <poolmalloc.h>
#include <stdint.h>

#include "check.h"
#include "threads.h"

enum { HEAPS_MOST = 12 };

static pthread_key_t key;

static void destructor(void *round)
{
    if ((intptr_t)round < PTHREAD_DESTRUCTOR_ITERATIONS)
        CHECK(pthread_setspecific(key, (void *)((intptr_t)round + 1)) == 0);
    else
        free(malloc(100));
}

static void *allocate_late(void *unused)
{
    CHECK(pthread_setspecific(key, (void *)1) == 0);
    return unused;
}

static void *free_one(void *block)
{
    free(block);
    return NULL;
}

int main(int argc, char **argv)
{
    int (*stats_get)(pm_stats *);
    *(void **)&stats_get = dlsym(RTLD_DEFAULT, "pm_stats_get");
    CHECK(stats_get != NULL);
    CHECK(pthread_key_create(&key, destructor) == 0);
    for (long i = argument(argc, argv, 1, 2000); i > 0; i--) {
        thread_run(allocate_late, NULL);
        thread_run(free_one, malloc(100));
    }
    static pm_stats stats = {.struct_size = sizeof stats};
    CHECK(stats_get(&stats) == 0);
    CHECKF(stats.heaps <= HEAPS_MOST, "%zu heaps for one thread at a time", stats.heaps);
    return 0;
}
