/* keeper.h: blocks that a thread of the hardened library keeps back from their slabs: those given back last, in the order in
 * which they came (the quarantine), and some of each class at hand. Which of the oldest
 * leaves quarantine is random, and so is the order of new blocks as long as there are few. Nothing is stored in a block.
 *
 *   given back → quarantine → at hand → handed out       the heap's own blocks, as long as there is room
 *                           ↘ going → their slabs        the others */
#ifndef PM_KEEPER_H
#define PM_KEEPER_H

#include "pools/registry.h"

#define QUARANTINE_BLOCKS 1024
#define QUARANTINE_BYTES (128 * KIB)
#define QUARANTINE_OLDEST 16
#define RANDOM_DEALS 64 /* of 16 blocks */
#define HAND_BLOCKS 32
#define HAND_BYTES (64 * KIB) /* of one class, but four blocks at least */
#define GOING_BLOCKS 32
#define FALL_BLOCKS 1024 /* given back in a row, after which little is kept: each may be the last one of its slab */
#define FALL_KEEPS 64
#define FALL_GOING 8 /* as many slabs as are purged in one go */
#define LATE_BLOCKS 64 /* those beyond are lost */

/* One a heap, of its thread alone, on pages between guards. All blocks in it count as in their heap's bins: what room is short
 * of limit. */
typedef struct keeper {
    uint64_t random;
    uint32_t now, thread; /* ms and thread id (0: not known), as of the last refill */
    uint32_t epoch;       /* of the registry, then */
    const uint64_t *last, *last_end; /* the first and last three words of the block given back last, which are zero: see hardened.c */
    size_t bytes;         /* in quarantine */
    uint32_t first, count, going_count;
    uint32_t falling;     /* blocks given back since one was taken */
    uint32_t calm;        /* the class whose hand goes next */
    uint32_t late_count;
    block *late[LATE_BLOCKS]; /* given back by a signal handler that came while the thread was inside */
    block *quarantine[QUARANTINE_BLOCKS]; /* a ring */
    block *going[GOING_BLOCKS];
    uint8_t held[CLASS_MAX], deals[CLASS_MAX];
    block *hand[CLASS_MAX][HAND_BLOCKS];
} keeper;

#define KEEPERS 8192 /* threads of higher heap numbers keep nothing */
extern keeper *pm_keepers[KEEPERS];
keeper *keeper_make(heap *h);

/* The one of heap h, whose thread calls; NULL: no memory. */
INLINE keeper *keeper_of(heap *h)
{
    keeper *k = LIKELY(h->number < KEEPERS) ? pm_keepers[h->number] : NULL;
    return LIKELY(k != NULL) ? k : keeper_make(h);
}
/* How many blocks of c one gets, and keeps, at hand. */
INLINE size_t keeper_most(const size_class *c) { return size_min(size_max(HAND_BYTES / c->size, 4), HAND_BLOCKS); }

INLINE size_t keeper_random(keeper *k, size_t below)
{
    k->random = k->random * 6364136223846793005u + 1442695040888963407u;
    return (k->random >> 32) * below >> 32;
}

/* One of those at hand, or NULL. */
INLINE block *keeper_take(keeper *k, heap *h, unsigned klass)
{
    size_t n = k->held[klass];
    if (UNLIKELY(n == 0))
        return NULL;
    block *p = k->hand[klass][n - 1];
    k->held[klass] = (uint8_t)(n - 1);
    h->bins[klass].room++;
    k->falling = 0;
    return p;
}
/* Blocks of one class that lie side by side, for an empty hand. They are taken in random order, the first thousand of a class; then
 * upwards: a list made of blocks in random order is walked at a third of the speed, and large heaps are where that counts. */
void keeper_deal(keeper *k, heap *h, unsigned klass, block **blocks, size_t n);

/* A block of klass was given back; the oldest leave quarantine for it. By the heap's thread, which is inside. */
void keeper_quarantine(keeper *k, heap *h, block *p, unsigned klass);
/* From a signal handler that came in between. */
void keeper_late(keeper *k, block *p);
void keeper_collect_late(keeper *k, heap *h); /* by the thread, now inside */
/* Of a thread without a keeper, and not inside. */
void keeper_pass(block *p);
/* All of it goes to its slabs; by the heap's thread, or after that has gone. The heap is locked. */
void keeper_empty(heap *h);

#endif
