/* pool_record.h: what an explicit pool is made of. The structure alone, because the live view reads it and free() asks it for the
 * size of a block; what is done with it is explicit/'s. */
#pragma once

#include "pools/heap.h"

/* Guarded by lock (NONE: by the caller), but for what is constant after creation.
 *   blocks out of the slabs = out = in use + in bins <= most
 *   NONE: in use + in hand <= peak, so that whatever is taken inline, there is nothing to note.
 *   slabs: those with free blocks before those without. */
struct pm_pool {
    bin hand;            /* first: see poolmalloc.h. Without room for ever but with NONE, and even there where each call must be seen */
    uint32_t bin_offset; /* THREADS: of the bin, from the beginning of the thread's heap; else of hand, from this; constant */
    uint8_t sharing;     /* pm_sharing; constant */
    bool in_pool;        /* the bin is in this, not in a heap; constant */
    bool looks_first;    /* free does not take the short way: it must look at the pointer; constant */
    uint8_t overflow;    /* pm_overflow; constant */
    size_class shape;    /* size, blocks a slab, …; constant */
    bin own;             /* LOCKED, NONE */
    uint32_t bins_begun; /* THREADS: heaps whose bin has a limit */
    os_lock lock;
    uint32_t keep;       /* slabs that stay even if empty; constant */
    uint32_t empty;      /* slabs of which no block is out */
    slab_list slabs;
    slab *leaving;       /* empty slabs that go to the depot when the lock is given back */
    struct piece *pieces; /* instead of slabs, for a pool over a buffer; linked by next, the newest first */
    size_t out, most;    /* most: SIZE_MAX without a maximum */
    size_t peak;         /* the most in use (THREADS: out) */
    size_t failures, forwarded;
    size_t mark;         /* high_water, or 0; constant, with its callback */
    void (*on_mark)(pm_pool *, void *);
    void *context;
    pm_pool *next, *previous; /* all pools; pools lock */
    size_t align;
    size_t piece_blocks; /* that all pieces have room for */
    uint32_t grow;       /* slabs that come at once, and empty ones that are kept for the next need; constant */
    bool report_leaks;   /* constant */
    char name[32];
    uint32_t number; /* counts the pools made; constant */
    bool twin;       /* another had this name when it was made; constant */
    bool ended;          /* destroyed, and the record not in use again so far */
};

static_assert(offsetof(pm_pool, shape) < 64, "the first line is all that the short ways of THREADS read, and nobody writes it");

/* All pools. */
typedef struct pool_table {
    os_lock lock;
    uint32_t bins; /* bin numbers ever given out */
    pm_pool *first; /* the oldest; linked by next */
    size_t count, demoted; /* pools there are; ones that became LOCKED because all bin numbers were taken */
    uint32_t made;         /* pools so far */
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
