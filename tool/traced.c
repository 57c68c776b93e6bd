/* traced.c: see traced.h. */
#include "traced.h"

#include "tool.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Waits until our parent has its eye on us. */
static _Noreturn void child_run(char **command, int go)
{
    char byte;
    while (read(go, &byte, 1) < 0 && errno == EINTR)
        ;
    close(go);
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    child_exec(command);
}

bool traced_start(traced *t, char **command, const char *rate)
{
    int go[2];
    memset(t, 0, sizeof *t);
    if (pipe(go) != 0)
        return false;
    setenv("POOLMALLOC_WHO", rate, 1);
    t->pid = fork();
    if (t->pid == 0) {
        close(go[1]);
        child_run(command, go[0]);
    }
    signal(SIGINT, SIG_IGN); /* ends the command, and we go on with what it left */
    signal(SIGQUIT, SIG_IGN);
    close(go[0]);
    if (t->pid > 0)
        t->stops = ptrace(PTRACE_SEIZE, t->pid, NULL, (void *)PTRACE_O_TRACEEXIT) == 0;
    close(go[1]);
    if (t->pid < 0)
        fprintf(stderr, "poolmalloc: no process for '%s': %s\n", command[0], strerror(errno));
    return t->pid > 0;
}

static void go_on(const traced *t, int signal) { ptrace(PTRACE_CONT, t->pid, NULL, (void *)(long)signal); }

static bool is_stop(int signal) { return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU; }

/* A traced process stops for each signal, too: it gets it, and what stops it holds. */
static void stopped(const traced *t, int status)
{
    int event = status >> 16, signal = WSTOPSIG(status);
    if (event == PTRACE_EVENT_STOP && is_stop(signal))
        ptrace(PTRACE_LISTEN, t->pid, NULL, NULL);
    else
        go_on(t, event ? 0 : signal);
}

traced_state traced_wait(traced *t, unsigned ms)
{
    if (t->ending)
        go_on(t, 0);
    t->ending = false;
    for (unsigned waited = 0;; waited++) {
        int status;
        pid_t pid = waitpid(t->pid, &status, WNOHANG | __WALL);
        if (pid < 0 && errno != EINTR)
            return TRACED_ENDED;
        if (pid == t->pid && WIFSTOPPED(status)) {
            t->ending = status >> 16 == PTRACE_EVENT_EXIT;
            if (t->ending)
                return TRACED_ENDING;
            stopped(t, status);
        } else if (pid == t->pid) {
            t->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
            return TRACED_ENDED;
        } else if (waited >= ms) {
            return TRACED_RUNS;
        } else {
            nanosleep(&(struct timespec){0, 1000000}, NULL);
        }
    }
}
