/* seams.h: the two tables by which pools/ calls those above it, who register themselves. No way that costs nothing today looks
 * at either. */
#ifndef PM_SEAMS_H
#define PM_SEAMS_H

#include "ground/base.h"

/* Explicit pools and arenas, from the first one on. Each may be called from any thread that is on a slow path. */
typedef struct guests {
    void (*bins_empty)(heap *h);    /* blocks at hand in a heap go to their slabs; by its thread, or after that has gone */
    void (*bins_recount)(heap *h);  /* after a fork: room from the blocks that are there */
    void (*shed)(void);             /* empty slabs that are not kept go to the depot */
    void (*check)(void);            /* aborts at the first breach */
    void (*fork_prepare)(void), (*fork_parent)(void), (*fork_child)(void);
    void (*free)(void *p, slab *s); /* plain free() of a block whose slab is a guest's */
} guests;

extern const guests *pm_guests; /* NULL: there are none */
INLINE const guests *guests_here(void) { return __atomic_load_n(&pm_guests, __ATOMIC_ACQUIRE); } /* guests_register releases */
void guests_register(const guests *g);

/* Modes that see every call: CHECK, STATS=full, PROFILE. A function that a watcher has no use for is NULL. */
typedef struct watcher {
    void (*alloc)(const void *p, size_t size);    /* p, a pool's block or the next allocator's, answers a request of `size` bytes */
    void (*free)(const void *p, size_t usable);   /* p, of so many bytes, is about to be given back */
    void (*resize)(const void *p, size_t size);   /* p stays where it is and answers another request */
    size_t (*usable)(const void *p, size_t most); /* what malloc_usable_size is to say, no more than `most` */
} watcher;

/* What is watched sends every call down the slow path: no bin ever holds a block, and no slab's owner is anybody's heap. Set
 * before the first heap exists. */
extern bool pm_every_call_slow;

/* At start, before the pools are up. */
void watch_register(const watcher *w);
void watch_alloc(const void *p, size_t size); /* p may be NULL */
void watch_free(const void *p, size_t usable);
void watch_resize(const void *p, size_t size);
size_t watch_usable(const void *p, size_t most);

INLINE void *watched(void *p, size_t size)
{
    if (UNLIKELY(pm_every_call_slow))
        watch_alloc(p, size);
    return p;
}

#endif
