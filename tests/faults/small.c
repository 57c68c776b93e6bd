/* small.c: a little of everything that an interposer sees: what is refused of its own calls must not be noticed here. */
#define _GNU_SOURCE
#include <malloc.h>
#include <sys/wait.h>

#include "../blackbox/check.h"
#include "../blackbox/pattern.h"
#include "../blackbox/threads.h"

enum { BLOCKS = 1200 };

static char *blocks[BLOCKS];

static size_t size_of(size_t i) { return 1 + i * 53 % 3000 + (i % 100 == 0 ? 60000 : 0); }

static void *take(void *first)
{
    for (size_t i = (size_t)first; i < BLOCKS; i += 2) {
        blocks[i] = i % 3 ? malloc(size_of(i)) : calloc(1, size_of(i));
        CHECK(blocks[i] != NULL && (i % 3 || all_zero(blocks[i], size_of(i))));
        pattern_fill(blocks[i], size_of(i), i);
    }
    return NULL;
}

static void *give(void *first)
{
    for (size_t i = (size_t)first; i < BLOCKS; i += 2) {
        CHECK(pattern_holds(blocks[i], size_of(i), i));
        if (i % 5 == 0) {
            CHECK((blocks[i] = realloc(blocks[i], size_of(i) * 2)) != NULL);
            CHECK(pattern_holds(blocks[i], size_of(i), i));
        }
        free(blocks[i]);
    }
    return NULL;
}

static void child_run(void)
{
    alarm(HANG_SECONDS);
    give((void *)1);
    take((void *)1);
    exit(0);
}

int main(void)
{
    void *aligned = NULL;
    alarm(HANG_SECONDS);
    take((void *)0);
    thread_run(take, (void *)1);
    CHECK(posix_memalign(&aligned, 256, 1000) == 0 && (size_t)aligned % 256 == 0);
    free(aligned);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        child_run();
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECKF(status == 0, "the child ended with status 0x%x", (unsigned)status);
    thread_run(give, (void *)0);
    give((void *)1);
    malloc_trim(0);
    thread_run(take, (void *)0);
    give((void *)0);
    return 0;
}
