/* fork.h: all that a fork means: what is held still for it, and what it leaves of other threads' heaps. */
#ifndef PM_FORK_H
#define PM_FORK_H

#include "pools/registry.h"

/* Before any other thread may come: the handlers of a program that registers its own later then run inside of these. Once;
 * the locks they take are good before the pools are up. */
void fork_register(void);

/* Heaps of threads that a fork left behind have not all been looked at. */
INLINE bool fork_left_heaps(void) { return UNLIKELY(LOAD(&pm_registry.forked) > 1); }
/* What those had at hand goes to its slabs; their heaps become idle. At most `most` heaps. Registry lock. */
void fork_collect_some(uint32_t most);
/* All of them. O(heaps). */
void fork_collect(void);

#endif
