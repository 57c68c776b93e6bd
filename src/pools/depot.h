/* depot.h: The slabs that no heap has: where they wait, and when their pages go back to the system. */
#pragma once

#include "ground/base.h"
#include "ground/os.h"
#include "pools/region.h"

/* All fields: guarded by lock, but for the reader that peeks.
 *   fresh = slabs ever handed out = used + waiting + dirty + broken + 16 * whole + clean (each by its count)
 *   touched = those of all slabs */
typedef struct depot {
    os_lock lock;
    size_t fresh;         /* slabs with a lower index have been handed out */
    size_t used;          /* slabs out of the depot */
    size_t waiting;       /* slabs on the classes' waiting lists */
    size_t touched;       /* bytes of slabs that may hold pages; atomic */
    slab_list dirty;      /* empty, oldest last; purged one by one */
    slab_list broken;     /* empty, of a huge unit other slabs of which are in use: taken first, purged last */
    slab_list whole;      /* first slabs of empty huge units, oldest last; purged unit by unit */
    slab_list clean;      /* empty, no pages */
    size_t regrets;       /* purged slabs that were needed again within 100 ms */
    uint64_t purges;      /* slabs purged so far */
    int64_t ripe;         /* slabs in use that have been full once, that is: touched all over */
    int64_t unripe;       /* slabs in use that have not, in huge units */
    size_t heap_bytes;    /* what heaps take of the limit; written under the registry's lock */
    uint64_t limit_hits;  /* requests for a slab refused because of the limit */
    size_t recent;        /* slabs purged one after the other within 100 ms each, and not needed again so far */
    uint32_t purged_at;   /* when the last was, ms */
    uint32_t news;        /* counts what may end a shortage: slabs that came back or were purged, heaps that became idle; atomic */
    uint32_t refused_at;  /* when the kernel last refused to purge one; 0: never */
    size_t lent;          /* empty slabs that heaps may keep, beyond SPARES each: they count as if they were on a list here */
} depot;

extern depot pm_depot __attribute__((visibility("hidden")));

/* How many empty slabs a heap keeps: what it wants doubles with each trip to the depot, and falls to 1 with a tick without need; what
 * it may is said at each trip, and never more than a quarter of its slabs. The heap's lock. */
typedef struct handful {
    uint16_t wants, may;
    uint32_t slabs; /* of the heap that have blocks out */
} handful;
#define HANDFUL_MOST 32
INLINE size_t handful_most(const handful *h) { return size_min(h->may, h->slabs / 4); }

INLINE void depot_tell_news(void) { __atomic_fetch_add(&pm_depot.news, 1, __ATOMIC_RELAXED); }

/* Slabs for `klass` (its own waiting one first), linked by next, or NULL at the limit or out of memory: one; for a heap as many as
 * it may hold, and if they were never used, as it wants. Each can hand out one block at least, or all of them where klass is none.
 * O(HANDFUL_MOST) but for growth of the region. The caller opens them. */
slab *depot_take(unsigned klass, handful *h);
/* The first `bytes` of a slab (behind its guard) are about to be used: they count for the limit. False: that is reached. By the holder of the slab. */
bool depot_touch(slab *s, size_t bytes);
/* So many bytes more may be heaps'. Registry lock. */
bool depot_allows_heap(size_t bytes);
/* What the use of huge pages is decided by: a slab in use becomes full for the first time, or stops being in use, or is
 * opened. By the holder of the slab. */
void depot_note_ripe(slab *s, int more);
void depot_note_unripe(slab *s, bool unripe);
/* The unit of a slab in use gives its huge page up: pages of it are about to be purged one by one. */
void depot_split(slab *s);
/* Takes back a chain of empty slabs linked by next; purges about as many at most. O(chain). From a heap what reads as zero
 * was never touched. */
void depot_put(slab *chain, handful *h);
void handful_grow(handful *h);
void handful_drop(handful *h); /* it wants no more than one */
/* Purges what is older than the delay, at most eight slabs or units; with `all`, everything purgeable.
 * Returns bytes given back. */
size_t depot_purge(bool all);
/* Address space behind the last slab that holds pages goes back, by whole units; false: there is none. */
bool depot_shrink(void);
/* Makes `count` slabs ready for klass. Returns how many there are: fewer at the limit or out of memory. */
size_t depot_reserve(unsigned klass, size_t count, bool prefault, bool *lock);
/* Whether pages may go back now: the settings say so, and the kernel did not refuse of late. */
bool depot_purges(uint64_t now);
void depot_check(void); /* aborts at the first breach; takes the lock */
