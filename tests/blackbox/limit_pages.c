/* Many threads with a block or two of each size: what they hold is a page of each slab, and POOLMALLOC_LIMIT counts that, not the
 * slabs. Run with a LIMIT of as many MiB as the argument says, which whole slabs would pass several times, and OVERFLOW=fail. */
#include "check.h"
#include <dlfcn.h>
#include <poolmalloc.h>

#include "threads.h"

enum { THREADS = 200, LARGEST = 4096 };

static pthread_barrier_t barrier;

static size_t next_size(size_t size) { return size + (size / 8 > 16 ? size / 8 : 16); }

static void *hold_each_size(void *unused)
{
    for (size_t size = 16; size <= LARGEST; size = next_size(size)) {
        void *p = malloc(size);
        CHECKF(p, "no block of %zu bytes", size);
        memset(p, 1, size);
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return unused;
}

int main(int argc, char **argv)
{
    size_t limit = (size_t)argument(argc, argv, 1, 64) << 20;
    static pthread_t threads[THREADS];
    static pm_stats s;
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, hold_each_size, NULL) == 0);
    pthread_barrier_wait(&barrier);
    s.struct_size = sizeof s;
    int (*stats_get)(pm_stats *) = (int (*)(pm_stats *))(uintptr_t)dlsym(RTLD_DEFAULT, "pm_stats_get");
    CHECK(stats_get != NULL && stats_get(&s) == 0);
    size_t slabs = 0;
    for (size_t i = 0; i < s.pools; i++)
        slabs += s.row[i].slabs;
    CHECKF(slabs > 5 * (limit >> 17), "%zu slabs are too few to tell", slabs);
    CHECKF(s.limit_hits == 0 && s.committed_bytes <= limit, "%zu refused, %zu bytes", s.limit_hits, s.committed_bytes);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
