/* stats.h: What the pools hold, as numbers: of this process, or of another one from a copy of its bookkeeping.
 * Reads only: other threads go on meanwhile. */
#pragma once

#include "pools/alloc.h"
#include "pools/bringup.h"
#include "pools/depot.h"
#include "pools/registry.h"

#include <poolmalloc.h>

/* Where the bookkeeping of a process lies. In the process itself, that is the bookkeeping itself; outside, local copies of
 * it, in which all pointers are still the process's own. */
typedef struct view view;
struct view {
    bool ready;             /* false: there are no pools, and nothing below counts but forwarded, next, pid */
    const region *region;
    const slab *slabs;      /* records of the slabs handed out so far */
    size_t slab_count;
    const char *heaps;      /* copies: heap i lies i * heap_stride bytes into it; of pool_bins those given out so far. NULL: they are here */
    size_t heap_stride;
    uint32_t heap_count;
    uint32_t watched;       /* heaps whose `slow` was read at another time than the heap itself: */
    const uint64_t *slow;   /* the same both times, and even: no slow path ran between the two */
    const size_class *classes;
    uint32_t class_count, class_fixed; /* from class_fixed on they were learned */
    const class_count *counts;
    const depot *depot;
    const shared_bins *shared; /* large blocks at hand for all */
    bool counted;           /* POOLMALLOC_STATS=full: `counts` are counted */
    const pool_table *pools;
    const void *pool_home, *nobody; /* what HEAP_POOL and HEAP_NOBODY are in the process */
    uint64_t forwarded;     /* calls forwarded by threads without a heap */
    const char *next;       /* name of the next allocator's file */
    uint32_t pid;
    const char *title;      /* of the text, and how it says sizes, in a column or a sentence; NULL: as the library does, in bytes */
    const char *(*say)(size_t bytes, bool column, char to[24]);
    const void *context;    /* of the two functions */
    /* Copies what the process has at `from`, aligned to 8; false: that is no address within the region, or not readable. */
    bool (*peek)(const view *v, const void *from, void *to, size_t bytes);
    /* Bytes in memory of the slabs [from, from + count); NULL: nobody wants to know. */
    size_t (*resident)(const view *v, size_t from, size_t count);
};

#define HEAPS_WATCHED 256 /* in the process itself, where nothing may be allocated */

/* The calling process, seen from inside; slow: room for HEAPS_WATCHED numbers. */
void view_here(view *v, uint64_t *slow);

/* Heaps on whose slow paths something happened between the two times that they were read. */
size_t view_busy(const view *v);

/* The totals, and a row for each block size of malloc and for all arenas. */
void stats_gather_sums(const view *v, pm_stats *s);
/* And rows for explicit pools, oldest first; where there are too few the last is the sum of all others, in blocks of one byte. */
void stats_gather_from(const view *v, pm_stats *s);

/* An explicit pool. Of those with one name at a time, all but one are twins. */
typedef struct pool_row {
    pm_stats_row row;
    uint32_t number; /* no other pool of the process ever has it */
    bool twin;
} pool_row;

/* Oldest first. O(pools and their slabs). */
void stats_pools(const view *v, void (*each)(const pool_row *r, void *context), void *context);

/* The first `bytes` of all of it for the calling process; without `resident`, no system call for each slab. */
void stats_copy(pm_stats *s, size_t bytes, bool resident);

/* The few that mallinfo tells, in bytes. */
typedef struct stats_sums {
    size_t committed, used, spare; /* spare: what a trim would give back, blocks of the next allocator at hand too */
} stats_sums;

stats_sums stats_sum(void);

/* One heap. */
typedef struct heap_stats {
    bool live;           /* a thread has it */
    size_t hand_bytes;   /* in its bins */
    size_t way_blocks;   /* in its runs, to other heaps */
} heap_stats;

/* False: heap `number` was never used. */
bool stats_heap(const view *v, uint32_t number, heap_stats *h);
