/* tune_plan.h: which block sizes waste least on given demands. Pure: no input, no output, no state. */
#pragma once

#include "pools/class.h"
#include "pools/slab.h"

#define PLAN_STEPS (BLOCK_MAX / QUANTUM)
#define PLAN_POOLS CLASS_MALLOC_MAX

/* What one more pool costs whatever it holds: half of the blocks that are carved at a time. In each process. */
#define PLAN_POOL_BYTES (2 * KIB)
#define PLAN_SLAB_BYTES (SLAB_SIZE + sizeof(slab) + SLAB_BITS_BYTES) /* a slab with its record and bits */

/* What programs ask for. Index s: requests of 16 s - 15 … 16 s bytes; 0 is not used. */
typedef struct demand {
    uint64_t calls[PLAN_STEPS + 1];
    uint64_t live[PLAN_STEPS + 1]; /* blocks, at the peak */
    uint64_t most[PLAN_STEPS + 1]; /* blocks, the greatest number at any time */
    uint64_t peak_bytes;           /* requested, at the peak */
    uint64_t large_calls;          /* requests beyond BLOCK_MAX */
    uint64_t processes;            /* that this is the sum of; 0 counts as one */
} demand;

void demand_add(demand *sum, const demand *more);

/* Block sizes, ascending multiples of QUANTUM, with blocks to pre-allocate. */
typedef struct plan {
    unsigned pools;
    uint32_t size[PLAN_POOLS];
    uint64_t count[PLAN_POOLS];
} plan;

/* Memory beyond what is requested, in bytes, at the peak. */
typedef struct waste {
    uint64_t requested; /* of what these pools serve */
    uint64_t rounding;  /* blocks larger than their request */
    uint64_t tails;     /* ends of slabs, records and bits */
    uint64_t parts;     /* of slabs: what each pool needs at other times, up to a slab or what is pre-allocated */
    uint64_t beyond;    /* requests larger than the largest block, which go to the next allocator */
} waste;

waste plan_waste(const demand *d, const plan *p);
INLINE uint64_t waste_sum(const waste *w) { return w->rounding + w->tails + w->parts; }

/* The exact optimum for every number of pools, by dynamic programming over the sizes asked for (a block size that
 * nobody asks for is never better than the next smaller one that somebody does). Time O(pools * sizes²), memory O(pools
 * * sizes). */
typedef struct search {
    unsigned sizes, pools; /* sizes asked for up to the maximum; most pools looked at */
    uint32_t size[PLAN_STEPS];
    uint64_t asked;                   /* bytes of the requests, to the next 16, that the costs are of */
    uint64_t cost[PLAN_POOLS + 1];    /* least memory with so many pools, in bytes * 256 */
    uint16_t (*from)[PLAN_STEPS + 1]; /* [pools][sizes]: how many sizes the pools before the last one serve */
} search;

/* NULL: out of memory, or nothing is asked for up to `max` bytes. */
search *search_run(const demand *d, size_t max);
void search_free(search *s);
/* Where one more pool stops paying: the fewest pools whose memory is within a thousandth of the least. */
unsigned search_knee(const search *s);
/* Bytes beyond `asked`. */
uint64_t search_waste(const search *s, unsigned pools);
/* The best plan with `pools` pools, at most s->pools. Without counts. */
plan search_plan(const search *s, unsigned pools);

/* For each pool, what the most demanding of the n demands has live at its peak, at least one, and an eighth
 * more: a pool without any would begin a fresh unit of slabs, and perhaps a huge page, for its few blocks. */
void plan_count(plan *p, const demand *each, size_t n);
/* 16, 32, 48, 64, then `steps` a doubling (1 or 4), to max: powers of two, jemalloc's classes. */
plan plan_ladder(unsigned steps, size_t max);
/* "SIZE:COUNT,SIZE:COUNT"; returns bytes written, without the final 0. 63 * 17 bytes are enough. */
size_t plan_print(const plan *p, char *to, size_t bytes);
