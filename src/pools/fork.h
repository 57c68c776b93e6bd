/* fork.h: all that a fork means.
 *
 * A thread that forks takes no lock of ours and waits for none. It counts pm_forking up, and waits until no other thread is on a
 * slow path; from then on nobody begins one: malloc forwards, free leaves the block with its slab. So the child finds every
 * lock free and every structure whole, but for the short ways: their stores come in an order that leaves lists proper, and
 * what they count is counted again (fork_collect).
 *
 * Invariants. A slow path under way waits for nothing that a thread outside of one may hold. So the wait ends, but for a signal
 * handler that interrupted a slow path: where it waits for the forking thread, after ten seconds; where it forks itself, and another
 * thread waits for a lock of the interrupted path, after a tenth of one. Then the child forwards everything.
 * The forking thread itself may begin slow paths, as long as it alone forks: fork handlers allocate. A fork out of a signal handler that
 * interrupted a slow path leaves that as it is: the child has the same stack, and finishes it. */
#pragma once

#include "pools/registry.h"

/* Before any other thread may come. Once. */
void fork_register(void);

/* What a thread without a heap does to shared structures stands between these two. False: another thread forks, or this is a signal handler
 * that has interrupted such a thread; forward. */
bool fork_hold(void);
void fork_release(void);

/* Heaps of threads that a fork left behind have not all been looked at. */
INLINE bool fork_left_heaps(void) { return UNLIKELY(LOAD(&pm_registry.forked) > 1); }
/* What those had at hand goes to its slabs; their heaps become idle. At most `most` heaps. Registry lock. */
void fork_collect_some(uint32_t most);
/* A heap whose thread is gone, as that left it: all goes home, and it becomes idle. Registry lock, and its own. */
void heap_retire(heap *h);
/* All of them. O(heaps). */
void fork_collect(void);
