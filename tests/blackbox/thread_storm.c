/* Ten thousand short threads leave nothing behind: what they free is reused, what they leave for others to free
 * is too. An allocator may keep some empty memory, now more and now less, so it is the peaks of an early and of the
 * last stretch that are compared. Argument: the number of threads. */
#include <stdint.h>

#include "check.h"
#include "process.h"
#include "threads.h"

enum { TOGETHER = 4, LEFT = 40, GROWTH_KIB = 12288 };

/* Blocks a thread leaves when it ends; main frees them. */
typedef struct { uintptr_t number; void *left[LEFT]; } Visit;

static void *visit(void *context)
{
    Visit *self = context;
    void *blocks[60];
    for (size_t i = 0; i < 60; i++) {
        size_t size = 16 + i * i * 9 + self->number % 100;
        CHECK((blocks[i] = malloc(size)) != NULL);
        memset(blocks[i], 1, size);
    }
    for (size_t i = 0; i < 60; i++)
        free(blocks[i]);
    for (size_t i = 0; i < LEFT; i++)
        CHECK((self->left[i] = calloc(1, 24 + i * 50)) != NULL);
    return NULL;
}

static void visit_together(uintptr_t number)
{
    Visit visits[TOGETHER];
    pthread_t threads[TOGETHER];
    for (int i = 0; i < TOGETHER; i++) {
        visits[i].number = number + (uintptr_t)i;
        threads[i] = thread_start(visit, &visits[i]);
    }
    for (int i = 0; i < TOGETHER; i++)
        thread_join(threads[i]);
    for (int i = 0; i < TOGETHER; i++)
        for (int j = 0; j < LEFT; j++)
            free(visits[i].left[j]);
}

/* Runs `count` threads; gives the highest RSS seen between them. */
static long stretch_run(uintptr_t count)
{
    long peak = 0;
    for (uintptr_t i = 0; i < count; i += TOGETHER) {
        visit_together(i);
        long rss = i % 16 == 0 ? rss_kib() : 0;
        peak = rss > peak ? rss : peak;
    }
    return peak;
}

int main(int argc, char **argv)
{
    uintptr_t count = (uintptr_t)argument(argc, argv, 1, 10000), third = count * 3 / 10;
    long early = stretch_run(third), mappings = mapping_count();
    stretch_run(count - 2 * third);
    long late = stretch_run(third);
    printf("%lu threads: RSS at most %ld KiB early, %ld late\n", (unsigned long)count, early, late);
    CHECKF(late < early + GROWTH_KIB, "peak RSS grew from %ld to %ld KiB", early, late);
    CHECKF(mapping_count() < mappings + 100, "mappings grew from %ld to %ld", mappings, mapping_count());
    return 0;
}
