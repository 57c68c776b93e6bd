/* A signal handler forks, whatever the thread is doing: on a slow path of the allocator's, or in a fork of its own. The child goes on
 * with that, then uses all that its parent had.
 * Arguments: forks out of the handler; "alone", "threads" (others are on slow paths too) or "forking" (so is main, in fork). */
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "check.h"
#include "pattern.h"
#include "threads.h"

enum { BLOCKS = 200, SIZE = 30000, THREADS = 3 };

static void *blocks[BLOCKS];
static volatile sig_atomic_t forks, is_child;
static long forks_most;
static atomic_bool stop;

static void blocks_take(void **to)
{
    for (int i = 0; i < BLOCKS; i++) {
        CHECK((to[i] = malloc(SIZE)) != NULL);
        pattern_stamp(to[i], SIZE, (uint64_t)i);
    }
}

static void blocks_give(void **from)
{
    for (int i = 0; i < BLOCKS; i++) {
        CHECK(pattern_stamped(from[i], SIZE, SIZE, (uint64_t)i));
        free(from[i]);
    }
}

static void child_wait(pid_t child)
{
    int status = 0;
    CHECK(child > 0);
    bool waited = waitpid(child, &status, 0) == child;
    if (is_child) /* by now; its brothers are not its own */
        return;
    CHECK(waited);
    CHECKF(status == 0, "the child ended with status 0x%x", (unsigned)status);
}

static void alarm_soon(void)
{
    static const struct itimerval soon = {{0, 0}, {0, 2000}};
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
}

static void on_alarm(int number)
{
    (void)number;
    pid_t child = fork();
    if (child == 0) {
        is_child = true;
        return;
    }
    child_wait(child);
    if (++forks < forks_most)
        alarm_soon();
}

/* A child has finished what was interrupted. */
static void child_end(void)
{
    if (!is_child)
        return;
    void *more[BLOCKS];
    for (int round = 0; round < 2; round++) {
        blocks_take(more);
        blocks_give(more);
    }
    _exit(0);
}

static void *churn(void *unused)
{
    void *own[BLOCKS];
    while (!atomic_load(&stop)) {
        blocks_take(own);
        blocks_give(own);
    }
    return unused;
}

static void fork_too(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(malloc(100) == NULL);
    child_wait(child);
}

static void signals_begin(void)
{
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    alarm_soon();
}

static void threads_begin(void)
{
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarms, NULL);
    for (int i = 0; i < THREADS; i++)
        thread_start(churn, NULL);
    pthread_sigmask(SIG_UNBLOCK, &alarms, NULL);
}

int main(int argc, char **argv)
{
    forks_most = argument(argc, argv, 1, 200);
    const char *how = argc > 2 ? argv[2] : "alone";
    if (strcmp(how, "threads") == 0)
        threads_begin();
    signals_begin();
    while (forks < forks_most) {
        blocks_take(blocks);
        child_end();
        if (strcmp(how, "forking") == 0)
            fork_too();
        blocks_give(blocks);
        child_end();
    }
    _exit(0);
}
