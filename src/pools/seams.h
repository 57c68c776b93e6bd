/* seams.h: the three tables by which pools/ calls those above it, who register themselves. No way that costs nothing today looks
 * at any. */
#pragma once

#include "ground/base.h"

/* Explicit pools and arenas, from the first one on. Each may be called from any thread that is on a slow path. */
typedef struct guests {
    void (*bins_empty)(heap *h);    /* blocks at hand in a heap go to their slabs; by its thread, or after that has gone, in a fork too */
    void (*shed)(void);             /* empty slabs that are not kept go to the depot */
    void (*check)(void);            /* aborts at the first breach */
    void (*free)(void *p, slab *s); /* plain free() of a block whose slab is a guest's */
} guests;

extern const guests *pm_guests __attribute__((visibility("hidden"))); /* NULL: there are none */
INLINE const guests *guests_here(void) { return __atomic_load_n(&pm_guests, __ATOMIC_ACQUIRE); } /* guests_register releases */
void guests_register(const guests *g);

/* Who keeps blocks of the next allocator at hand, in front of the pools. Without any lock held, outside of slow paths' marks. */
typedef struct storer {
    void (*tick)(void);   /* now and then, after a slow path */
    void (*idle)(heap *h); /* the calling thread, whose heap this is, ends or rests */
    size_t (*trim)(void); /* everything goes back; bytes of that */
    void (*forked)(void); /* in a child, by its one thread */
} storer;

extern const storer *pm_storer __attribute__((visibility("hidden"))); /* NULL: there is none; set before the first heap exists */

/* Modes that see every call: CHECK, STATS=full, PROFILE. A function that a watcher has no use for is NULL. */
typedef struct watcher {
    void *(*alloc)(void *p, size_t size);         /* p, a pool's block or the next allocator's, or what is returned, answers a request */
    void (*free)(const void *p, size_t usable);   /* p, of so many bytes, is about to be given back */
    void (*resize)(const void *p, size_t size);   /* p stays where it is and answers another request */
    size_t (*usable)(const void *p, size_t most); /* what malloc_usable_size is to say, no more than `most` */
} watcher;

/* What is watched sends every call down the slow path: no bin ever holds a block, and no slab's owner is anybody's heap. Set
 * before the first heap exists. */
extern bool pm_every_call_slow __attribute__((visibility("hidden")));

/* A wish for samples (insight/who.h), which hides the sizes (learn.h): then malloc is watched, and what comes to a slow path of free.
 * Written by the API, and from outside. */
extern uint64_t pm_asked __attribute__((visibility("hidden")));
extern void *pm_samples; /* what answers it; NULL until the first time */
/* How many sampled blocks have an address with this hash: none, for most frees, and the watcher is not called. */
#define SAMPLE_MARKS 65536
extern uint8_t pm_sample_marks[SAMPLE_MARKS];
INLINE uint32_t block_hash(const void *p) { return (uint32_t)(((uintptr_t)p >> QUANTUM_SHIFT) * 0x9E3779B97F4A7C15u >> 32); }
INLINE uint8_t *block_mark(const void *p) { return &pm_sample_marks[block_hash(p) % SAMPLE_MARKS]; }
/* A watcher sees every call, or sizes are hidden. In the hardened library every call is slow, and mostly nobody watches. */
extern bool pm_watching __attribute__((visibility("hidden")));
INLINE bool calls_watched(void) { return LOAD(&pm_watching) || LOAD(&pm_asked) != 0; }
void watch_hidden(bool hidden);

/* At start, before the pools are up. all: sees every call from the start on; else while pm_asked is not 0. */
void watch_register(const watcher *w, bool all);
void *watch_alloc(void *p, size_t size); /* p may be NULL */
void watch_free(const void *p, size_t usable);
void watch_resize(const void *p, size_t size);
size_t watch_usable(const void *p, size_t most);

INLINE void *watched(void *p, size_t size)
{
    return UNLIKELY(calls_watched()) ? watch_alloc(p, size) : p;
}
