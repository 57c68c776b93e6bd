/* At the limit: a request that is forwarded does not search all pools first, and what comes back is found again. Run with a limit of
 * 16 MiB, OVERFLOW=forward. */
#include <dlfcn.h>
#include <poolmalloc.h>
#include <pthread.h>

#include "check.h"

enum { PAIRS = 50000, HELD = 400000 };

static void *held[HELD];

static size_t limit_hits(void)
{
    static pm_stats s = {.struct_size = sizeof s};
    int (*get)(pm_stats *);
    *(void **)&get = dlsym(RTLD_DEFAULT, "pm_stats_get");
    CHECK(get != NULL && get(&s) == 0);
    return s.limit_hits;
}

static void *pairs(void *unused)
{
    for (int i = 0; i < PAIRS; i++) {
        void *p = malloc(200), *q = malloc(400);
        CHECK(p != NULL && q != NULL);
        free(p);
        free(q);
    }
    return unused;
}

int main(void)
{
    pthread_t threads[2];
    for (int i = 0; i < HELD; i++)
        CHECK((held[i] = malloc(48)) != NULL);
    size_t before = limit_hits();
    CHECKF(before > 0, "the limit was not reached");
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, pairs, NULL) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    size_t hits = limit_hits() - before;
    CHECKF(hits < 4 * PAIRS / 20, "%zu searches", hits);
    for (int i = 0; i < HELD; i++)
        free(held[i]);
    void *far = malloc(400000), *near;
    for (int i = 0; i < 1000; i++)
        CHECK((near = malloc(200)) != NULL);
    CHECKF((size_t)near >> 36 != (size_t)far >> 36, "what came back is not used");
    return 0;
}
