/* tune_run.h: a command under POOLMALLOC_PROFILE. */
#pragma once

#include "tune.h"

#include <sys/types.h>

/* Runs the command, its stdout on stderr, and adds the profiles of it and its children. Returns its exit status (128 +
 * the signal that ended it); all->n stays 0 when it could not be run or left none, of which stderr tells. `look`, unless NULL, is
 * called now and then while it runs. */
int tune_run(char **command, profiles *all, void (*look)(pid_t));
