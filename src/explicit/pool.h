/* pool.h: An explicit pool: slabs of one block size behind one lock, and bins that draw from them.
 *
 *   LOCKED   one bin, own.
 *   NONE     two: own, and hand, which callers use inline (poolmalloc.h).
 *   THREADS  a bin in every heap, at an offset that is this pool's while it lives; used without a lock.
 *
 * Over a caller's buffer pieces stand in for slabs. No run ever carries a pool's block: whatever thread frees it, it goes
 * to that thread's bin, and from there, half a bin at a time, to its slab. So all blocks of a pool are in its slabs, in those
 * bins, or in the program's hands. */
#pragma once

#include "explicit/pieces.h"
#include "ground/config.h"
#include "pools/pool_record.h"
#include "pools/slab.h"
#include "pools/threads.h"

#include <errno.h>
#include <poolmalloc.h>

static_assert(offsetof(pm_pool, hand) == 0 && offsetof(bin, free) == offsetof(pm_pool_hand, free) &&
                  offsetof(bin, room) == offsetof(pm_pool_hand, room), "what callers use inline");
static_assert(sizeof(heap) <= 65536, "callers tell a hand's place in a heap from an address");

INLINE void *fail_with(int error)
{
    errno = error;
    return NULL;
}

/* What is cheap to look for elsewhere only: misuse by the caller, which is reported then. */
INLINE bool misuse_watched(void) { return PM_HARDENED || pm_config.check; }

INLINE bin *pool_bin(const pm_pool *pool, heap *h) { return (bin *)((char *)h + pool->bin_offset); }
INLINE size_t bin_holds(const bin *b) { return (size_t)(b->limit - b->room); }
/* Not THREADS. */
INLINE size_t pool_used(const pm_pool *pool) { return pool->out - bin_holds(&pool->own) - bin_holds(&pool->hand); }

/* A thread that a fork left behind may have held it in the short ways of LOCKED, for which no fork waits: they change own alone. */
INLINE void pool_hold(pm_pool *pool)
{
    if (UNLIKELY(os_lock_take(&pool->lock)))
        bin_recount(&pool->own);
}
void pool_lock(pm_pool *pool);   /* NONE: nothing */
void pool_unlock(pm_pool *pool); /* and what leaves goes to the depot */
/* The same with the thread marked as being on a slow path, so that no fork comes in the midst of it; its heap, for the end. */
INLINE heap *pool_enter(pm_pool *pool)
{
    heap *h = heap_enter_mine();
    pool_lock(pool);
    return h;
}
INLINE void pool_leave(pm_pool *pool, heap *h)
{
    pool_unlock(pool);
    heap_leave_mine(h);
}

/* With the lock. */
void pool_accept(pm_pool *pool, slab *s);                 /* an empty slab of nobody's is the pool's now */
bool pool_fill(pm_pool *pool, bin *b);                    /* blocks for an empty bin; false: no slab has any, or all are out */
void pool_give_back(pm_pool *pool, bin *b, size_t count); /* up to count blocks of the bin go to their slabs */
void pool_give(pm_pool *pool, block *p);
void pool_shed(pm_pool *pool, size_t keep); /* empty slabs beyond so many in all leave; O(slabs) */
void pool_reset(pm_pool *pool);               /* all blocks are free; its bins are the caller's to make so */
void pool_check(pm_pool *pool);

/* Pools, and the handling of explicit pools within them, are up; false: there is no address space, or the system refuses. */
bool explicit_up(void);
/* A record for a pool or an arena, zeroed, or NULL; h: the calling thread's heap, marked, or NULL. */
void *record_take(heap *h);
void record_give(void *record); /* pools lock */
