/* traced.h: a command that is run to be looked at, up to the moment of its end: its memory is still there then, whatever ends it. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

typedef enum { TRACED_RUNS, TRACED_ENDING, TRACED_ENDED } traced_state;

typedef struct traced {
    pid_t pid;
    bool stops;   /* it will stop when it ends: ptrace is allowed */
    bool ending;  /* it stands still there */
    int status;   /* when it has ended: its own exit status, or 128 + the signal */
} traced;

/* Runs it under the library, sampling one in `rate` bytes; its stdout is our stderr. False, with one line: it cannot be. */
bool traced_start(traced *t, char **command, const char *rate);
/* What has become of it; waits so many ms at most. ENDING is told once; it goes on with the next call. */
traced_state traced_wait(traced *t, unsigned ms);
