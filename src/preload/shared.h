/* shared.h: Large blocks at hand for all threads, behind each heap's own (large.h): for threads that come and go, and for those that
 * free what others ask for. Same sizes, same rules: a bin keeps what was missed before. How many blocks each may keep is large.c's
 * business, who counts their bytes.
 *
 * No lock: a list is taken whole and what is left of it put back; whoever comes in between finds it empty, and goes to the next
 * allocator. Any thread, also in a signal handler. A fork in between loses the child the rest of that list, but no room: it counts what
 * there is. O(1), but for what other threads put there meanwhile. */
#pragma once

#include "pools/kept.h"
#include "pools/misuse.h"

INLINE kept_block *list_take(kept_block **list) { return __atomic_exchange_n(list, NULL, __ATOMIC_ACQUIRE); }

/* All that is in the list goes to another one, aside, marked as having gone back; how many. */
unsigned list_move(kept_block **from, kept_block **to);

/* A report, abort: p is freed again; it is at hand, but its mark says that it is not. Said to return, so that the short way jumps there. */
void kept_freed(const kept_block *p) __attribute__((noreturn, cold));
void *kept_wrong(const kept_block *p) __attribute__((returns_nonnull, cold));
INLINE bool kept_hand_out(kept_block *p)
{
    return (p->mark ^= KEPT_HERE) == 0; /* one instruction */
}

bool shared_put(unsigned c, kept_block *p);   /* false: no room; c below KEPT_BINS, as everywhere here */
kept_block *shared_take(unsigned c);          /* of that bin or the next one, or NULL */
void shared_admit(unsigned c, kept_block *p); /* and the bin may keep one block more */

void shared_given(unsigned c);  /* a block of that bin goes back to the next allocator */
bool shared_regret(unsigned c); /* has one gone back since the last look that was not regretted yet? */
void shared_raise(unsigned c);  /* one block more may be kept */

/* Blocks that go back are linked into `to`; how many fewer the bin may keep. */
uint32_t shared_look(unsigned c, kept_block **to);  /* what was not needed since the last look, and half of the room where nothing went by */
uint32_t shared_empty(unsigned c, kept_block **to); /* all of it */
void shared_forked(void);                      /* in a child */
INLINE int64_t shared_bytes(void) { return LOAD(&pm_shared.bytes); } /* at hand */
