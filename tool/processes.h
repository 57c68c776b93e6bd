/* processes.h: all processes that run on pools, with what changed since the last look. */
#pragma once

#include "live.h"

typedef struct process {
    pid_t pid;
    char command[32], arguments[200];
    bool seen;                  /* in the present look */
    size_t used, resident, committed, forwarded, threads;
    double used_rate, forwarded_rate; /* a second */
} process;

typedef struct processes {
    process *at;
    size_t count, room;
    size_t denied;              /* processes that may not be read */
} processes;

/* `seconds`: since the last look. */
void processes_look(processes *all, double seconds);
