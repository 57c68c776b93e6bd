/* child.h: what becomes of a process that does what nobody should, and what it says. */
#pragma once

#include "unit.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char child_said[4096]; /* to stderr */

/* Runs `act` in a child, until that and all that has its stderr are gone. As waitpid. */
static inline int child_run(void (*act)(void))
{
    int said[2], status = -1;
    size_t length = 0;
    assert_int_equal(pipe(said), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); /* cmocka's would go on with the next test */
        signal(SIGBUS, SIG_DFL);
        dup2(said[1], 2);
        close(said[0]);
        close(said[1]);
        act();
        _exit(0);
    }
    close(said[1]);
    for (ssize_t n = 1; n > 0; length += n > 0 ? (size_t)n : 0)
        n = read(said[0], child_said + length, sizeof child_said - 1 - length);
    child_said[length] = 0;
    close(said[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static inline void assert_said(const char *words)
{
    if (!strstr(child_said, words))
        fail_msg("'%s' is not in: %s", words, child_said);
}

static inline void assert_aborts(void (*act)(void), const char *words)
{
    int status = child_run(act);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
        fail_msg("status %#x instead of abort: %s", (unsigned)status, child_said);
    assert_said(words);
}

static inline void assert_exits(void (*act)(void), int with)
{
    int status = child_run(act);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != with)
        fail_msg("status %#x instead of exit %d: %s", (unsigned)status, with, child_said);
}
