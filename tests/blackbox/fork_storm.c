/* Forks out of the middle of allocation: 16 threads allocate, each forks in its turn. A child uses every size
 * class, starts threads of its own, and finds its parent's blocks whole; the parent must not see what it wrote.
 * Argument: the number of forks. */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "check.h"
#include "pattern.h"
#include "threads.h"

enum { THREADS = 16, CHILD_THREADS = 3, SLOTS = 64, SHARED = 512 };

static atomic_long forks_left, operations;
static char *shared[SHARED];
static size_t shared_size[SHARED];

static void every_size(Random *random)
{
    char *blocks[100];
    int count = 0;
    for (size_t size = 1; size < 200000; size += size / 8 + 1) {
        CHECK((blocks[count] = malloc(size)) != NULL);
        pattern_stamp(blocks[count++], size, size);
        if (random_below(random, 3) == 0)
            free(blocks[--count]);
        CHECK(count < 100);
    }
    while (count > 0)
        free(blocks[--count]);
}

static void *child_thread(void *context)
{
    Random random = {(uintptr_t)context};
    for (int i = 0; i < 3; i++)
        every_size(&random);
    return context;
}

/* Blocks that the parent's threads made are valid here too: read, resized, freed. */
static void child_takes_shared_blocks(void)
{
    for (int i = 0; i < SHARED; i++) {
        CHECKF(pattern_stamped(shared[i], shared_size[i], shared_size[i], (uint64_t)i), "block %d differs in the child", i);
        memset(shared[i], 0xee, shared_size[i]);
        if (i % 2 == 0)
            free(shared[i]);
        else
            CHECK((shared[i] = realloc(shared[i], shared_size[i] * 2 + 1)) != NULL);
    }
}

static void child_run(Random random)
{
    alarm(HANG_SECONDS);
    pthread_t threads[CHILD_THREADS];
    every_size(&random);
    for (uintptr_t i = 0; i < CHILD_THREADS; i++)
        threads[i] = thread_start(child_thread, (void *)(i + 1));
    child_takes_shared_blocks();
    for (int i = 0; i < CHILD_THREADS; i++)
        thread_join(threads[i]);
    malloc_trim(0);
    every_size(&random);
    exit(0); /* with exit handlers: they must find a sane allocator as well */
}

static void churn(char **slots, size_t *sizes, Random *random)
{
    for (int i = 0; i < 400; i++) {
        size_t at = random_below(random, SLOTS);
        free(slots[at]);
        sizes[at] = random_below(random, random_below(random, 20) ? 700 : 50000) + 1;
        CHECK((slots[at] = malloc(sizes[at])) != NULL);
        pattern_stamp(slots[at], sizes[at], at);
    }
    atomic_fetch_add(&operations, 800);
}

/* The parent's thread goes on allocating while its child runs, so that each fork meets busy threads. */
static void fork_once(char **slots, size_t *sizes, Random *random)
{
    pid_t child = fork(), done;
    CHECK(child >= 0);
    if (child == 0)
        child_run(*random);
    int status;
    while ((done = waitpid(child, &status, WNOHANG)) == 0)
        churn(slots, sizes, random);
    CHECK(done == child);
    CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status 0x%x%s", (unsigned)status,
           WIFSIGNALED(status) && WTERMSIG(status) == 14 ? " (it hung)" : "");
}

static void *allocate_and_fork(void *context)
{
    Random random = {(uintptr_t)context};
    char *slots[SLOTS] = {NULL};
    size_t sizes[SLOTS];
    while (atomic_load(&forks_left) > 0) {
        churn(slots, sizes, &random);
        if (atomic_fetch_sub(&forks_left, 1) > 0)
            fork_once(slots, sizes, &random);
        for (size_t i = 0; i < SLOTS; i++)
            CHECKF(slots[i] == NULL || pattern_stamped(slots[i], sizes[i], sizes[i], i), "a child wrote into its parent");
    }
    for (size_t i = 0; i < SLOTS; i++)
        free(slots[i]);
    return NULL;
}

int main(int argc, char **argv)
{
    forks_left = argument(argc, argv, 1, 100);
    pthread_t threads[THREADS];
    for (int i = 0; i < SHARED; i++) {
        shared_size[i] = (size_t)i * (size_t)i / 4 + 1;
        shared[i] = malloc(shared_size[i]);
        pattern_stamp(shared[i], shared_size[i], (uint64_t)i);
    }
    for (uintptr_t i = 0; i < THREADS; i++)
        threads[i] = thread_start(allocate_and_fork, (void *)(i + 100));
    for (int i = 0; i < THREADS; i++)
        thread_join(threads[i]);
    for (int i = 0; i < SHARED; i++) {
        CHECKF(pattern_stamped(shared[i], shared_size[i], shared_size[i], (uint64_t)i), "a child wrote into block %d of its parent", i);
        free(shared[i]);
    }
    printf("%ld operations beside the forks\n", operations);
    return 0;
}
