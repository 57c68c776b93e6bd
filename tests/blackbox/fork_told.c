/* In the child of a fork a thread frees a block of a thread that the fork left behind, and at one of its instructions, at each one in turn,
 * another thread's first call has what was left behind collected. The slab that is told of then must be told of once: told of twice, its
 * heap's list would be a circle. */
#define _GNU_SOURCE
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/wait.h>

#include "check.h"
#include "threads.h"

#if defined(__x86_64__)
enum { TRAP_FLAG = 0x100, BLOCKS = 4000, STEPS_LEAST = 30, ENDED = 1, REACHED = 0 };

static void *blocks[BLOCKS];
static atomic_bool made, collect, collected;
static long left; /* instructions before the other thread's call */

static void trapped(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    (void)context;
    if (left-- != 0)
        return;
    atomic_store(&collect, true);
    while (!atomic_load(&collected))
        sched_yield();
}

static void trap_set(bool on)
{
    uint64_t flags;
    __asm__ volatile("sub $128, %%rsp; pushfq; pop %0; add $128, %%rsp" : "=r"(flags));
    flags = on ? flags | TRAP_FLAG : flags & ~(uint64_t)TRAP_FLAG;
    __asm__ volatile("sub $128, %%rsp; push %0; popfq; add $128, %%rsp" : : "r"(flags) : "cc", "memory");
}

/* It stays, with its blocks. */
static void *thread_left(void *unused)
{
    for (int i = 0; i < BLOCKS; i++)
        CHECK((blocks[i] = malloc(64)) != NULL);
    free(malloc(64)); /* the linker has found it */
    atomic_store(&made, true);
    for (;;)
        pause();
    return unused;
}

static void *thread_collects(void *unused)
{
    while (!atomic_load(&collect))
        sched_yield();
    free(malloc(64));
    atomic_store(&collected, true);
    return unused;
}

static void *thread_frees(void *block)
{
    trap_set(true);
    free(block);
    trap_set(false);
    return NULL;
}

static int child_run(void)
{
    alarm(60); /* of next to no work */
    pthread_t collector = thread_start(thread_collects, NULL);
    thread_run(thread_frees, blocks[BLOCKS / 2]);
    bool reached = left < 0;
    atomic_store(&collect, true);
    thread_join(collector);
    for (int i = 0; i < BLOCKS; i++)
        if (i != BLOCKS / 2)
            free(blocks[i]);
    malloc_trim(0);
    return reached ? REACHED : ENDED;
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    int status = REACHED;
    long steps = 0;
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
    thread_start(thread_left, NULL);
    while (!atomic_load(&made))
        sched_yield();
    for (; WEXITSTATUS(status) == REACHED; steps++) {
        left = steps;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0)
            _exit(child_run());
        CHECK(waitpid(child, &status, 0) == child);
        CHECKF(WIFEXITED(status), "collected after %ld instructions: status %#x", steps, (unsigned)status);
    }
    CHECKF(steps > STEPS_LEAST && WEXITSTATUS(status) == ENDED, "%ld instructions", steps);
    printf("%ld instructions\n", steps);
    return 0;
}
#else
int main(void) { return EXIT_SKIPPED; }
#endif
