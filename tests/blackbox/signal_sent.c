/* SIGSEGV that somebody sends is no fault of memory: it does what it does without us, in a program that handles it and in one that
 * does not. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/wait.h>

#include "check.h"

enum { HANDLED = 7, ALLOCATIONS = 1000 };

static void by_kill(void) { kill(getpid(), SIGSEGV); }
static void by_raise(void) { raise(SIGSEGV); }
static void by_queue(void) { sigqueue(getpid(), SIGSEGV, (union sigval){.sival_int = HANDLED}); }

static void handle(int number, siginfo_t *info, void *context)
{
    (void)context;
    _exit(number == SIGSEGV && info->si_code == SI_QUEUE && info->si_pid == getpid() ? info->si_value.sival_int : 1);
}

/* POOLMALLOC_GUARD watches from its first block on. */
static void allocate(void)
{
    for (int i = 0; i < ALLOCATIONS; i++)
        free(malloc(40));
}

static int status_of(void (*send)(void), void (*handler)(int, siginfo_t *, void *))
{
    pid_t child = fork();
    if (child == 0) {
        struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
        if (handler)
            sigaction(SIGSEGV, &action, NULL);
        allocate();
        send();
        _exit(0);
    }
    int status = 0;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return status;
}

int main(void)
{
    void (*const ways[])(void) = {by_kill, by_raise, by_queue};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        int status = status_of(ways[i], NULL);
        CHECKF(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "way %zu: status %d", i, status);
    }
    int status = status_of(by_queue, handle);
    CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == HANDLED, "handled: status %d", status);
    return 0;
}
