/* live.h: another process's pools, read from outside through /proc and process_vm_readv. Never stops or writes to it. */
#ifndef PM_LIVE_H
#define PM_LIVE_H

#include "region.h"

#include <sys/types.h>

typedef enum { LIVE_FOUND, LIVE_NO_PROCESS, LIVE_NO_PERMISSION, LIVE_NO_POOLS } live_result;

/* Copies `bytes` at `from` in process pid; false: not all of it can be read. */
bool live_read(pid_t pid, const void *from, void *to, size_t bytes);
/* Finds the control page of pid by its magic. */
live_result live_find(pid_t pid, control *found);
const char *live_explain(live_result result);

#endif
