/* keeper.h: blocks that a thread of the hardened library keeps back from their slabs, of each class: those given back last, in the
 * order in which they came (the quarantine), and new ones at hand. Which of the oldest leaves quarantine is random, and so is the
 * order of new blocks as long as there are few. Nothing is stored in a block.
 *
 *   given back → quarantine → handed out             once that has its least
 *                           ↘ going → their slabs    when it is full, and in a fall */
#pragma once

#include "pools/registry.h"

#define QUARANTINE_BLOCKS 512 /* a ring, of which half is the least that stays */
#define QUARANTINE_BYTES (64 * KIB)
#define QUARANTINE_LEAST 12 /* blocks, whatever their bytes */
#define QUARANTINE_MORE 4   /* the same, of those beyond the least */
#define QUARANTINE_OLDEST 16 /* of which one is drawn; of fewer than 32 one of the older half */
#define RANDOM_DEALS 64 /* of 16 blocks */
#define HAND_BLOCKS 16
#define HAND_BYTES (32 * KIB) /* of one class, but two blocks at least */
#define GOING_BLOCKS 32
#define FALL_BLOCKS 1024 /* given back in a row, after which little is kept: each may be the last one of its slab */
#define FALL_KEEPS 4     /* of a class */
#define FALL_GOING 8     /* as many slabs as are purged in one go: blocks that go at once, and between two looks */
#define LATE_BLOCKS 64   /* those beyond are lost */

typedef struct shelf {
    uint32_t bytes, room;  /* of a block; how far into its slab the last one may begin */
    uint16_t first, end;   /* in quarantine, a ring: the oldest, and behind the newest; both run on */
    uint16_t least, most;  /* blocks there: beyond the least, malloc takes from it */
    uint16_t oldest;       /* among so many one is drawn then */
    uint8_t held, deals;   /* blocks at hand; how often some came */
    block *hand[HAND_BLOCKS];
    block *quarantine[QUARANTINE_BLOCKS];
} __attribute__((aligned(BIN_SIZE))) shelf;

/* One a heap, of its thread alone, on pages between guards. All blocks in it count as in their heap's bins: what room is short
 * of limit. The thread marks its heap as entered while it is here, and takes no lock: as in the short ways of bins, each store
 * leaves what a fork or a signal handler may find, a block in one place at most. */
typedef struct keeper {
    uint64_t random;
    const uint64_t *last; /* the block given back last, whose first two words are zero; or two others that are */
    uint64_t stamp;       /* what a block given back now says of it, as of the last refill */
    int32_t until_fall;   /* blocks that may be given back, none taken in between, before it is a fall: then FALL_GOING at most */
    uint32_t thread, epoch; /* id (0: not known); of the registry, then */
    uint32_t calm;        /* the class that goes next in a fall */
    uint32_t going_count, late_count;
    block *going[GOING_BLOCKS]; /* to their slabs, which takes the heap's lock */
    block *late[LATE_BLOCKS]; /* given back by a signal handler that came while the thread was inside */
    shelf shelves[CLASS_MAX];
} keeper;

/* By which thread, and when: milliseconds, which wrap after 17 minutes. */
#define STAMP_MS_BITS 20
#define STAMP_BITS (STAMP_MS_BITS + 22)
INLINE uint64_t keeper_stamp(uint32_t ms, uint32_t thread)
{
    return (uint64_t)1 << STAMP_BITS | (uint64_t)(thread & ((1u << 22) - 1)) << STAMP_MS_BITS | (ms & ((1u << STAMP_MS_BITS) - 1));
}
void keeper_restamp(keeper *k);

keeper *keeper_make(heap *h);
void keeper_forget_last(keeper *k); /* nothing is known of the block given back last from now on */
/* NULL: no memory. */
INLINE keeper *keeper_of(heap *h) { return LIKELY(h->keeper != NULL) ? h->keeper : keeper_make(h); }

/* The upper half; odd from the beginning. */
INLINE uint64_t keeper_random(keeper *k) { return (k->random *= 0xAF251AF3B0F025B5u) >> 32; }
INLINE size_t keeper_random_below(keeper *k, size_t below) { return (size_t)(keeper_random(k) * below >> 32); }

/* A signal handler may come in between, and a fork look: not the lock of heap_enter, which costs more than all the rest. False: it has
 * come in between. */
INLINE bool keeper_enter(heap *h)
{
    if (UNLIKELY(h->inside))
        return false;
    STORE(&h->inside, true);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    return true;
}
INLINE void keeper_leave(heap *h) { __atomic_store_n(&h->inside, false, __ATOMIC_RELEASE); }

/* Its address in a register, where gcc 12 would make it anew for each field. */
INLINE shelf *shelf_at(keeper *k, size_t offset)
{
    shelf *s = (shelf *)(void *)((char *)k->shelves + offset);
    __asm__("" : "+r"(s));
    return s;
}
INLINE shelf *shelf_of(keeper *k, unsigned klass) { return shelf_at(k, klass * sizeof(shelf)); }
/* By what the table of sizes says. */
INLINE shelf *shelf_by(keeper *k, size_t bin_offset) { return shelf_at(k, bin_offset * (sizeof(shelf) / BIN_SIZE)); }

INLINE size_t quarantine_count(const shelf *s) { return (uint16_t)(s->end - s->first); }

/* One of so many of the oldest. It leaves its place before another one comes there. */
INLINE block *quarantine_pop(keeper *k, shelf *s, size_t oldest)
{
    size_t begin = s->first;
    block **first = &s->quarantine[begin % QUARANTINE_BLOCKS];
    block **at = &s->quarantine[(begin + keeper_random_below(k, oldest)) % QUARANTINE_BLOCKS];
    block *p = *at, *other = *first;
    STORE(&s->first, (uint16_t)(begin + 1));
    __atomic_signal_fence(__ATOMIC_RELEASE);
    STORE(at, other);
    return p;
}

/* By the heap's thread, which is inside, as all that follows but keeper_send. One that waited, or is new; or NULL. */
INLINE block *shelf_take(keeper *k, shelf *s, bin *b)
{
    block *p;
    if (LIKELY(quarantine_count(s) > s->least)) {
        p = quarantine_pop(k, s, s->oldest);
    } else {
        size_t n = s->held;
        if (UNLIKELY(n == 0))
            return NULL;
        p = s->hand[n - 1];
        STORE(&s->held, (uint8_t)(n - 1));
    }
    b->room++;
    k->until_fall = FALL_BLOCKS;
    return p;
}
INLINE block *keeper_take(keeper *k, heap *h, unsigned klass) { return shelf_take(k, shelf_of(k, klass), &h->bins[klass]); }
/* At the limit, sooner than what the next allocator would give: one that has not waited for long, but the newest; or NULL. */
block *keeper_take_early(keeper *k, heap *h, unsigned klass);
/* How many new blocks of c one gets at once. */
INLINE size_t keeper_deals(const size_class *c) { return size_min(size_max(HAND_BYTES / c->size, 2), HAND_BLOCKS); }
/* Blocks of one class that lie side by side, for an empty hand. They are taken in random order, the first thousand of a class; then
 * upwards: a list made of blocks in random order is walked at a third of the speed, and large heaps are where that counts. */
void keeper_deal(keeper *k, heap *h, unsigned klass, block **blocks, size_t n);

bool keeper_overflow(keeper *k, heap *h, block *p, unsigned klass);
/* One more block was given back. */
INLINE bool keeper_falls(const keeper *k) { return k->until_fall < FALL_GOING; }
INLINE bool shelf_has_room(keeper *k, const shelf *s) { return LIKELY(--k->until_fall >= 0) && LIKELY(quarantine_count(s) < s->most); }
INLINE void quarantine_push(shelf *s, bin *b, block *p)
{
    size_t end = s->end;
    s->quarantine[end % QUARANTINE_BLOCKS] = p;
    __atomic_signal_fence(__ATOMIC_RELEASE);
    STORE(&s->end, (uint16_t)(end + 1));
    b->room--;
}
/* A block of klass was given back. True: enough are going for keeper_send. */
INLINE bool keeper_quarantine(keeper *k, heap *h, block *p, unsigned klass)
{
    shelf *s = shelf_of(k, klass);
    if (UNLIKELY(!shelf_has_room(k, s)))
        return keeper_overflow(k, h, p, klass);
    quarantine_push(s, &h->bins[klass], p);
    return false;
}
void keeper_send(keeper *k, heap *h); /* by the thread, not inside */

/* From a signal handler that came in between. */
void keeper_late(keeper *k, block *p);
void keeper_collect_late(keeper *k, heap *h);
/* Of a thread without a keeper, and not inside. */
void keeper_pass(block *p);
/* All of it goes to its slabs; by the heap's thread, or after that has gone. The heap is locked. */
void keeper_empty(heap *h);
