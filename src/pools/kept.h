/* kept.h: Where blocks of the next allocator are at hand, in a heap and for all threads, for whoever keeps them (seams.h); the pools never look. */
#pragma once

#include "ground/base.h"

#define KEPT_SHIFT 15 /* bins begin above 32 KiB */
#define KEPT_STEP (KEPT_SHIFT - 3) /* all bins' sizes are multiples of that */
#define KEPT_LEAST ((size_t)1 << KEPT_SHIFT)
#define KEPT_BINS 80  /* eight to a doubling, up to 32 MiB: beyond, the C library maps each block by itself */
extern unsigned pm_kept_bins __attribute__((visibility("hidden"))); /* that are looked at: KEPT_BINS, or 0 while sizes are hidden */

/* A block of the next allocator's as it is at hand. While it is, and as long as nobody writes there after it has gone back, it says so. */
typedef struct kept_block {
    uint32_t here; /* the address */
    uint32_t mark; /* KEPT_HERE; KEPT_GONE: it has gone back; else it was taken */
    struct kept_block *next;
} kept_block;

#define KEPT_HERE 0x9e3779b9u
#define KEPT_GONE 0x9e3779bau
/* The program may write what it likes: first a hint, by one byte. */
INLINE bool kept_hints(const kept_block *p) { return p->mark >> 24 == KEPT_HERE >> 24; }
INLINE bool kept_says(const kept_block *p, uint32_t mark) { return p->mark == mark && p->here == (uint32_t)(uintptr_t)p; }
INLINE void kept_say(kept_block *p, uint32_t mark)
{
    p->here = (uint32_t)(uintptr_t)p;
    p->mark = mark;
}

/* Blocks of at least kept_size. 0 <= room <= limit. The lists are linked by next; each is taken whole, by exchange, so that another
 * thread can do it; all else is its thread's. */
typedef struct kept_bin {
    kept_block *fresh; /* freed since the last look */
    kept_block *old;   /* at hand since before that, and not needed since */
    int16_t room;   /* limit less the blocks that came in and were not taken by the thread */
    uint16_t taken; /* blocks that other threads took from the lists; atomic */
    uint8_t limit;  /* blocks that may be at hand */
    uint8_t given;  /* blocks given back since the last look: so many misses are regrets */
    uint64_t nothing;
} kept_bin;
static_assert(sizeof(kept_bin) == 32, "a shift, and never on two lines");

typedef struct kept_bins {
    kept_bin bin[KEPT_BINS + 1]; /* the last one never has room: it follows the one before it */
    uint64_t looked;  /* ms: when the last look began */
    uint32_t seen_at; /* ms: since when other threads have seen the same `seen` here; theirs */
    uint32_t seen;
    uint32_t spare;   /* in steps of KEPT_STEP: the room of all bins, when the last sum was made */
    uint8_t at;       /* the next bin to look at; 0: when the delay is over */
    uint8_t asked;    /* for that; a sum is made at 0 and now and then */
    uint8_t until;    /* counts down by one a block; at 0 the clock is looked at */
    uint8_t away;     /* the thread is in the next allocator, which may have locked something: so often, as handlers may come in between */
} kept_bins;

/* Blocks that any thread may take. Both lists are taken whole; who took more than one block puts the rest back. */
typedef struct shared_bin {
    kept_block *fresh; /* freed since the last look */
    kept_block *old;   /* at hand since before that */
    int32_t blocks; /* in the lists, or just on their way to or from one */
    int32_t limit;  /* blocks that may be at hand */
    int32_t given;  /* blocks given back since the last look: so many misses are regrets */
} __attribute__((aligned(64))) shared_bin; /* all of it atomic */

typedef struct shared_bins {
    shared_bin bin[KEPT_BINS + 1]; /* the last one never has a limit */
    uint64_t looked;               /* ms: when the last look began */
    int64_t bytes;                 /* of all `blocks` */
    uint32_t at;                   /* the next bin to look at; KEPT_BINS or more: when the delay is over */
} shared_bins;

extern shared_bins pm_shared __attribute__((visibility("hidden")));

INLINE size_t kept_size(unsigned c) { return (size_t)(c % 8 + 9) << (KEPT_STEP + c / 8); }
