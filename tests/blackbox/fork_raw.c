/* Processes that come about by other means than fork(), so that no handler tells the library: by the kernel's clone, as browsers make
 * theirs, whose child then has threads of its own; and by vfork() in a thread whose first allocations are its child's, who shares
 * memory with everybody. The threads that are there must not be taken for dead ones. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "check.h"
#include "pattern.h"
#include "threads.h"

enum { BLOCKS = 3000, ROUNDS = 12, AGAIN = 8, FIRST = 400 };

static char *kept[2][BLOCKS];
static atomic_bool begun;

static size_t size_of(size_t i, int round) { return 16 + (i * 37 + (size_t)round * 11) % 3000; }

/* Each block replaces one of the round before, whose contents it finds. */
static void churn(int whose, int *round)
{
    for (int end = *round + ROUNDS; *round < end; ++*round)
        for (size_t i = 0; i < BLOCKS; i++) {
            char *block = malloc(size_of(i, *round)), *old = kept[whose][i];
            CHECK(block != NULL);
            pattern_stamp(block, size_of(i, *round), i + (size_t)whose);
            CHECKF(!old || pattern_stamped(old, size_of(i, *round - 1), size_of(i, *round - 1), i + (size_t)whose), "block %zu changed", i);
            free(old);
            kept[whose][i] = block;
        }
}

static void child_await(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECKF(status == 0, "the child's status is %#x", (unsigned)status);
}

static void *thread_churn(void *round)
{
    atomic_store(&begun, true);
    churn(1, round);
    return NULL;
}

static void by_clone(int *mine)
{
    int others = 0;
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    CHECK(child >= 0);
    if (child > 0) {
        child_await(child);
        return;
    }
    for (int i = 0; i < AGAIN; i++) {
        atomic_store(&begun, false);
        pthread_t thread = thread_start(thread_churn, &others);
        while (!atomic_load(&begun))
            sched_yield();
        churn(0, mine);
        thread_join(thread);
    }
    _exit(0);
}

static void *thread_vfork(void *round)
{
    pid_t child = vfork(); /* NOLINT: that is the question */
    if (child == 0) {
        static void *blocks[FIRST];
        for (size_t i = 0; i < FIRST; i++)
            if (!(blocks[i] = malloc(1000)))
                _exit(1);
        for (size_t i = 0; i < FIRST; i++)
            free(blocks[i]);
        _exit(0);
    }
    child_await(child);
    churn(1, round);
    return NULL;
}

static void by_vfork(int *mine)
{
    int others = 0;
    for (int i = 0; i < AGAIN; i++) {
        pthread_t thread = thread_start(thread_vfork, &others);
        churn(0, mine);
        thread_join(thread);
    }
}

int main(void)
{
    int round = 0;
    alarm(HANG_SECONDS);
    churn(0, &round);
    by_clone(&round);
    by_vfork(&round);
    return 0;
}
