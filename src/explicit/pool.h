/* pool.h: An explicit pool: slabs of one block size behind one lock, and bins that draw from them.
 *
 *   LOCKED, NONE   one bin, the pool's own.
 *   THREADS        a bin in every heap, at an offset that is this pool's while it lives; used without a lock.
 *
 * No message ever carries a pool's block: whatever thread frees it, it goes to that thread's bin, and from there, half a bin
 * at a time, to its slab. So all blocks of a pool are in its slabs, in those bins, or in the program's hands. */
#ifndef PM_POOL_H
#define PM_POOL_H

#include "ground/base.h"
#include "pools/heap.h"
#include "ground/os.h"
#include "pools/slab.h"

#include <poolmalloc.h>

/* Guarded by lock (NONE: by the caller), but for what is constant after creation.
 *   blocks out of the slabs = out = in use + in bins <= most;  LOCKED, NONE: in use = out - own.limit + own.room.
 *   slabs: those with free blocks before those without (but for while a visit lasts). */
struct pm_pool {
    size_class shape;    /* size, blocks a slab, …; constant */
    uint32_t bin_offset; /* of the bin: from the beginning of the thread's heap (THREADS), or of this; constant */
    uint8_t sharing;     /* pm_sharing; constant */
    bool in_pool;        /* the bin is in this, not in a heap; constant */
    bool looks_first;    /* free does not take the short way: it must look at the pointer; constant */
    uint8_t overflow;    /* pm_overflow; constant */
    int64_t peak_room;   /* own.room above which more are in use than ever; THREADS: INT64_MAX, constant */
    int64_t mark_room;   /* own.room at which `mark` are in use; without a callback, and THREADS: INT64_MIN */
    bin own;             /* LOCKED, NONE; it has no limit while visiting */
    bin none;            /* LOCKED: the bin of the short ways, empty for ever: so they end up where the lock is taken */
    os_lock lock;
    bool visiting;  /* slabs keep their places and their pool, and frees go straight to them */
    uint32_t keep;  /* slabs that stay even if empty; constant */
    uint32_t empty; /* slabs of which no block is out */
    slab_list slabs;
    slab *leaving; /* empty slabs that go to the depot when the lock is given back */
    size_t out, most; /* most: SIZE_MAX without a maximum; constant */
    size_t peak;   /* the most in use (THREADS: out) that was noted: before a block comes back, and when asked */
    size_t failures, forwarded;
    size_t mark; /* high_water, or 0; constant, with its callback */
    void (*on_mark)(pm_pool *, void *);
    void *context;
    pm_pool *next, *previous; /* all pools; pools lock */
    size_t max_blocks, align;
    char name[32];
};

static_assert(offsetof(pm_pool, own) == 64, "the first line is all that the short ways of THREADS read, and nobody writes it");

/* All pools. Lock order: registry, pools, a pool's, heap, depot. */
typedef struct pool_table {
    os_lock lock;
    uint32_t bins; /* bin numbers ever given out */
    pm_pool *first; /* the oldest; linked by next */
    size_t count, demoted; /* pools there are; ones that became LOCKED because all bin numbers were taken */
    size_t arena_slabs;    /* atomic */
    pm_pool *of_bin[POOL_BINS];
    pm_pool *last;
} pool_table;

extern pool_table pm_pools;

INLINE const size_class *slab_class(const slab *s)
{
    const pm_pool *pool = LOAD(&s->pool);
    return pool ? &pool->shape : &pm_classes[LOAD(&s->klass)];
}
INLINE size_t block_size_of(const void *p) { return slab_class(slab_of(p))->size; }
INLINE bin *pool_bin(const pm_pool *pool, heap *h) { return (bin *)((char *)h + pool->bin_offset); }
INLINE size_t bin_holds(const bin *b) { return (size_t)(b->limit - b->room); }

void pool_lock(pm_pool *pool);   /* NONE: nothing */
void pool_unlock(pm_pool *pool); /* and what leaves goes to the depot */

/* With the lock. */
void pool_accept(pm_pool *pool, slab *s);                 /* an empty slab of nobody's is the pool's now */
bool pool_fill(pm_pool *pool, bin *b);                    /* blocks for an empty bin; false: no slab has any, or all are out */
void pool_give_back(pm_pool *pool, bin *b, size_t count); /* up to count blocks of the bin go to their slabs */
void pool_give(pm_pool *pool, block *p);
void pool_shed(pm_pool *pool, size_t keep); /* empty slabs beyond so many in all leave; O(slabs) */
void pool_reset(pm_pool *pool);               /* all blocks are free, but what lies in heaps' bins */
void pool_sort(pm_pool *pool);                /* after a visit; empty slabs but for a few leave */
void pool_note_peak(pm_pool *pool);           /* what is in use now may be the most so far */
void pool_watch(pm_pool *pool);               /* out, the peak or own's limit has changed */
void pool_check(pm_pool *pool);

/* A slab, in nobody's list, for a pool or an arena; NULL at the limit or out of memory. */
slab *pool_slab(void);
void slab_disown(slab *s); /* it may go to the depot */
/* A record for a pool or an arena, zeroed, or NULL. Pools lock. */
void *record_take(void);
void record_give(void *record);
/* All of a heap's blocks of pools go to their slabs; by the heap's thread, or after that has gone. */
void pools_empty_bins(heap *h);
void pools_recount_bins(heap *h); /* after a fork: room from the blocks that are there */
void pools_shed_all(void);        /* every empty slab beyond a pool's first ones leaves; not of NONE */
void pools_check_all(void);

void pools_fork_prepare(void);
void pools_fork_parent(void);
void pools_fork_child(void);

#endif
