/* who.h: what `who` and `leaks` share. */
#pragma once

#include "held.h"

/* Leaves in `look`, the last one of process pid, which stands still, only samples of blocks to which no pointer is found. */
live_result leaks_find(pid_t pid, held *h, held_look *look, const sampler *from);

/* The largest call sites of a process, for top. */
typedef struct sites sites;
typedef struct site {
    char text[300]; /* innermost function first */
    double bytes, error;
} site;
/* NULL: why not says `wrong`. */
sites *sites_open(pid_t pid, const char **wrong);
/* Takes a look; returns how many there are, `most` at most; -1: the process is gone. */
int sites_take(sites *s, site *to, size_t most);
void sites_close(sites *s);
