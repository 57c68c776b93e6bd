/* shared.h: Large blocks at hand for all threads, behind each heap's own (large.h): for threads that come and go, and for those that
 * free what others ask for. Same sizes, same rules: a bin keeps what was missed before. How many blocks each may keep is large.c's
 * business, who counts their bytes.
 *
 * No lock: a list is taken whole and what is left of it put back; whoever comes in between finds it empty, and goes to the next
 * allocator. Any thread, also in a signal handler; a fork in between loses the child the rest of that list. O(1), but for what other
 * threads put there meanwhile. */
#ifndef PM_SHARED_H
#define PM_SHARED_H

#include "pools/kept.h"
#include "pools/misuse.h"

INLINE block *list_take(block **list) { return __atomic_exchange_n(list, NULL, __ATOMIC_ACQUIRE); }

/* All that is in the list goes to another one, aside; how many. */
unsigned list_move(block **from, block **to);
void large_twice(const void *p) __attribute__((noreturn, cold)); /* freed again: a report, abort */

bool shared_put(unsigned c, block *p);   /* false: no room; c below KEPT_BINS, as everywhere here */
block *shared_take(unsigned c);          /* of that bin or the next one, or NULL */
void shared_admit(unsigned c, block *p); /* and the bin may keep one block more */

void shared_given(unsigned c);  /* a block of that bin goes back to the next allocator */
bool shared_regret(unsigned c); /* has one gone back since the last look that was not regretted yet? */
void shared_raise(unsigned c);  /* one block more may be kept */

/* Blocks that go back are linked into `to`; how many fewer the bin may keep. */
uint32_t shared_look(unsigned c, block **to);  /* what was not needed since the last look, and half of the room where nothing went by */
uint32_t shared_empty(unsigned c, block **to); /* all of it */
INLINE int64_t shared_bytes(void) { return LOAD(&pm_shared.bytes); } /* at hand */

#endif
