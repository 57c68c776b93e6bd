/* A thread jumps out of a signal handler that came in the midst of malloc, another one ends there. No promise is made of what they had at
 * hand, but the others go on: the first fork waits for the two in vain, later ones do not, and their children work. */
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/wait.h>

#include "check.h"
#include "process.h"
#include "threads.h"

#if defined(__x86_64__)
/* In the midst of a refill from a slab of the thread's own, which takes no lock but its heap's. */
enum { STEPS = 200, BLOCKS = 600, FORKS = 5, PATIENCE_SECONDS = 10 };

static __thread sigjmp_buf back;
static __thread volatile int steps;
static __thread bool ends, left;
static atomic_int away;

static void trap_set(bool on)
{
    uint64_t flags;
    __asm__ volatile("sub $128, %%rsp; pushfq; pop %0; add $128, %%rsp" : "=r"(flags));
    flags = on ? flags | 0x100 : flags & ~(uint64_t)0x100;
    __asm__ volatile("sub $128, %%rsp; push %0; popfq; add $128, %%rsp" : : "r"(flags) : "cc", "memory");
}

static void trapped(int number)
{
    (void)number;
    if (++steps < STEPS)
        return;
    left = true;
    if (ends)
        pthread_exit(NULL);
    siglongjmp(back, 1);
}

static void *leave(void *in_what_way)
{
    ends = in_what_way != NULL;
    CHECK(malloc(64) != NULL);
    for (volatile int i = 0; i < BLOCKS && !left; i++)
        if (sigsetjmp(back, 1) == 0) {
            steps = 0;
            trap_set(true);
            malloc(64);
            trap_set(false);
        }
    CHECKF(left, "no call took %d instructions", STEPS);
    free(malloc(64)); /* by the next allocator */
    atomic_fetch_add(&away, 1);
    for (;;)
        pause();
    return NULL;
}

static void *end(void *unused)
{
    (void)unused;
    pthread_exit(NULL); /* loads what the next one needs */
}

static void fork_once(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(HANG_SECONDS);
        for (int i = 0; i < BLOCKS; i++)
            free(memset(malloc(64), 1, 64));
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECKF(status == 0, "the child ended with status 0x%x", (unsigned)status);
}

int main(void)
{
    struct sigaction action = {.sa_handler = trapped};
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
    thread_run(end, NULL);
    thread_run(leave, &away);
    thread_start(leave, NULL);
    while (atomic_load(&away) == 0)
        sleep_ms(1);
    fork_once();
    double since = seconds_now();
    for (int i = 0; i < FORKS; i++)
        fork_once();
    CHECKF(seconds_now() - since < PATIENCE_SECONDS, "%d forks waited again: %.1f s", FORKS, seconds_now() - since);
    for (int i = 0; i < BLOCKS; i++)
        free(memset(malloc(64), 1, 64));
    return 0;
}
#else
int main(void) { return EXIT_SKIPPED; }
#endif
