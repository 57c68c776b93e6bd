/* alloc.h: malloc and free of pool blocks: the two short ways, inline, and what they fall back to. */
#pragma once

#include "pools/pool_record.h"

/* Exact counts, kept only with STATS=full (watch_calls): atomic, relaxed. */
typedef struct class_count {
    uint64_t allocations, frees, peak; /* live = allocations - frees; peak: the most live at once */
} class_count;
extern class_count pm_class_counts[CLASS_MAX];

extern bool pm_pools_ready __attribute__((visibility("hidden"))); /* pools_init, releases */

/* Slow path of malloc: a block of klass for a request of `size` bytes, or NULL when the pools cannot serve it (no memory, at the limit, or a signal
 * handler has come in between). Bounded: see docs/DESIGN.md, Bounded work. */
void *alloc_slow(unsigned klass, size_t size);
/* The same with all of its bytes zero. */
void *alloc_zeroed(unsigned klass, size_t size);
/* All was searched in vain a moment ago, and nothing has come back since: this request is not looked for. */
bool alloc_is_short(heap *h, unsigned klass);
/* The parts of it, for the hardened library: by the thread, which is inside; what is done now and then; without a heap. */
block *alloc_fill(heap *h, bin *b);
void alloc_housekeep(heap *h);
block *alloc_orphan(unsigned klass);
/* A block whose free comes to a slow path: p itself; or another one of its class, and p is given back; or NULL: not now, and p stays. */
void *alloc_seen(void *p);
void free_full(void *p, slab *s, heap *h, bin *b); /* the bin has no room; room was counted down. As free() has them in registers */
void free_other(void *p, slab *s); /* the slab's owner is not the calling thread's heap */

/* One block less is out. True: that many are left that somebody should look. On x86-64 each store is a release, and the plain one
 * an instruction shorter. */
INLINE bool slab_out_down(slab *s)
{
#if PM_SANITIZED || !defined(__x86_64__)
    int32_t left = s->left - 1;
    __atomic_store_n(&s->left, left, __ATOMIC_RELEASE);
    return left == 0;
#else
    return --s->left == 0;
#endif
}

/* The bin has room, or free_full makes some. */
INLINE void free_to_bin(void *p, slab *s, heap *h, bin *b)
{
    if (UNLIKELY(--b->room < 0)) {
        free_full(p, s, h, b);
        return;
    }
    ((block *)p)->next = b->free;
    __atomic_signal_fence(__ATOMIC_RELEASE);
    b->free = p;
}

/* free() of a pool block: 18 instructions on the short way, with the region test. */
INLINE void free_block(void *p)
{
    slab *s = slab_of(p);
    heap *h = my_heap;
    if (UNLIKELY(READ(&s->owner) != h)) {
        free_other(p, s);
        return;
    }
    free_to_bin(p, s, h, READ(&s->bin));
}

/* Empties the calling thread's bins, looks at all that heaps are told of, gives back the pages of every empty slab, and pages between
 * blocks in use. Returns the bytes given back. O(heaps + slabs + blocks in use), with a system call for each gap. */
size_t pools_trim(void);
/* Before a request beyond the pools fails: address space behind the last slab with a block in use goes back, by whole units. */
bool pools_shrink(void);
/* Re-derives every counter of the depot and of the heaps that hold still; aborts at the first breach. */
void pools_check(void);
/* STATS=full and CHECK register their watchers. */
void alloc_watch(void);
