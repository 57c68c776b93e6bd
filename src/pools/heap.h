/* heap.h: One thread's view of all pools: bins, slabs, messages to and from other heaps.
 * malloc and free touch my_heap and one bin of it; all else happens on the slow paths of heap.c. */
#ifndef PM_HEAP_H
#define PM_HEAP_H

#include "ground/base.h"
#include "pools/class.h"
#include "pools/heap_ids.h"
#include "pools/kept.h"
#include "ground/os.h"
#include "pools/region.h"
#include "pools/seams.h"

/* Blocks of one class at hand. free and room belong to the thread alone; partial to the holder of heap.lock.
 *   blocks in the bin = limit - room;  0 <= room <= limit, but for the moment in which free() finds it full. */
struct bin {
    block *free;
    int32_t room;
    uint16_t limit;   /* 0 at the end of a fall, in a pool's bin until it is used, and always in modes that count every call */
    uint8_t klass;
    uint8_t spills;   /* how often it was full since a refill found it empty, up to FALL_SPILLS; more: see heap_spill */
    slab *partial;    /* a ring of slabs with free blocks; the first is taken from, one that gets its first goes last */
    block *seen;      /* the first block at the last look: the same at the next one means that the bin is at rest */
};
static_assert(sizeof(bin) == BIN_SIZE && BIN_SIZE == HEAP_ID_BYTES, "");

/* Blocks of other heaps, on their way: one chain, sent as one message. */
typedef struct outbox {
    heap *to;
    block *chain;
    uint32_t count, bytes;
} outbox;

#define BIN_GROWTH 4             /* times its class's limit that a bin may come to keep */
#define BIN_BUDGET (176 * KIB)   /* for all bins of a heap: with their 410 KiB of limits, below 600 KiB for a thread that filled all */
#define SPILL_BLOCKS 96          /* that a full bin gives back at most, as long as its thread allocates too */
#define FALL_SPILLS 32           /* in a row, after which it gives back up to BIN_BLOCKS and keeps little: the thread only frees */
static_assert(FALL_SPILLS <= UINT8_MAX && BIN_GROWTH * BIN_BLOCKS <= UINT16_MAX, "spills and limit hold them");
#define OUTBOXES 8
#define OUTBOX_BLOCKS 32
#define OUTBOX_BYTES (16 * KIB)
#define DRAIN_BLOCKS 64  /* what a slow path takes in, and one message more: twice what it hands out */
#define SPARES 2         /* empty slabs that a heap keeps for its next need */
#define TICK 256         /* slow paths between two looks at the clock */
#define CALM 16          /* slow paths between two looks at a bin, one after the other: blocks at rest pin slabs */

typedef enum { HEAP_UNUSED, HEAP_LIVE, HEAP_IDLE, HEAP_CLOSED } heap_state;

struct heap {
    bin bins[CLASS_MAX]; /* malloc's; first: the table of bin offsets counts from here */

    os_lock lock;    /* guards the bins' partial, pending, spare, leaving, and the slabs whose home this is */
    bool inside;     /* the thread is on a slow path: a signal handler that comes here must not */
    uint8_t state;   /* heap_state; registry lock */
    uint32_t number; /* index in the registry */
    uint32_t epoch;  /* fork generation in which the thread lived */
    heap *next_idle; /* registry lock */
    uint64_t slow;   /* slow paths begun and ended: odd while inside; tells the live view a quiet heap from a busy one */
    uint64_t forwarded, overflowed; /* calls handed to the next allocator: too large; for want of pool memory */
    uint64_t messages_sent, blocks_sent; /* atomic exchanges made, blocks they carried */
    block *pending;  /* messages taken from the inbox, not yet looked at */
    slab *spare;     /* empty slabs, linked by next */
    slab *leaving;   /* empty slabs that go to the depot when the lock is given back */
    uint32_t spares;
    uint32_t budget; /* bytes by which bins may still grow beyond their classes' limits */
    bool spare_idle; /* no spare was used since the last tick */
    uint32_t chores; /* slow paths of malloc and free: what is done now and then counts by them */
    outbox out[OUTBOXES];

    /* Messages from other threads: chains linked by next, chained by next_message. Push by compare-and-swap (release),
     * taken whole by exchange (acquire). On a line of its own: every other thread writes here. */
    _Alignas(64) block *inbox;

    kept_bins kept; /* of the next allocator */
    uint32_t grown[32]; /* realloc's: blocks to which a buffer has moved to grow, by a hash: 28 bits of the address, and how often */

    bin pool_bins[POOL_BINS]; /* of explicit pools; limit 0 while not in use */
    char apart[4 * KIB];      /* never touched */
};

#define NO_HEAPS_BYTES (sizeof(heap) + 4 * HEAP_ID_BYTES) /* of pm_no_heaps */

/* What a heap touches of itself in a program without explicit pools and large blocks. */
#define HEAP_TOUCHED round_up(offsetof(heap, kept), 4 * KIB)
static_assert((sizeof(struct heap) + 4095) / 4096 % 2 == 1, "heap_post spreads heaps over outboxes by their addresses");

extern __thread heap *my_heap __attribute__((visibility("hidden")));
extern __thread heap *pm_lent __attribute__((visibility("hidden")));
extern __thread int64_t pm_unwatched __attribute__((visibility("hidden"))); /* bytes that it may ask for, in small requests, unseen */

/* A thread lends its heap, so that each of its calls comes to a slow path, and finds there what it would have found. It gets it
 * back on the first one after pm_asked has become 0. */
INLINE heap *heap_mine(void) { return UNLIKELY(my_heap == HEAP_LENT) ? pm_lent : my_heap; }
INLINE void heap_lend(void)
{
    if (UNLIKELY(heap_is_real(my_heap))) {
        pm_lent = my_heap;
        __atomic_signal_fence(__ATOMIC_SEQ_CST);
        my_heap = HEAP_LENT;
    }
}

INLINE bin *bin_of_size(heap *h, size_t size)
{
    return (bin *)((char *)h + pm_bin_offset[(size + QUANTUM - 1) / QUANTUM]);
}

/* The link is read before the head moves, and written before it (in free): whoever sees only a part of these stores,
 * the child of a fork, still sees a proper list. */
INLINE void *bin_pop(bin *b)
{
    block *p = b->free;
    if (LIKELY(p != NULL)) {
        b->free = p->next;
        b->room++;
    }
    return p;
}

/* What the short way would have found in the bin of a heap that is lent, if nobody is to see it; or NULL. */
#define UNWATCHED_MOST 1024
INLINE void *bin_pop_lent(bin *b, size_t size)
{
    if (size >= UNWATCHED_MOST || pm_unwatched < (int64_t)size)
        return NULL;
    void *p = bin_pop(b);
    pm_unwatched -= p ? (int64_t)size : 0;
    return p;
}

INLINE void bin_push(bin *b, void *p)
{
    b->room--;
    ((block *)p)->next = b->free;
    __atomic_signal_fence(__ATOMIC_RELEASE);
    b->free = p;
}

/* A bin's chain is built and taken apart aside, since a signal handler may come in between and use the bin: it finds an
 * empty one, and what it frees stays. */
INLINE void bin_prepend(bin *b, block *first, block **end, size_t count)
{
    *end = b->free;
    b->room -= (int32_t)count;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    b->free = first;
}
INLINE block *bin_detach(bin *b)
{
    block *chain = b->free;
    b->free = NULL;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    return chain;
}
/* What bin_detach gave, or what is left of it. */
INLINE void bin_attach(bin *b, block *chain)
{
    block **end = &b->free;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    while (*end)
        end = &(*end)->next;
    *end = chain;
}

/* After a fork, which may have come between the two stores of a push or pop. */
INLINE void bin_recount(bin *b)
{
    b->room = b->limit;
    for (const block *p = b->free; p; p = p->next)
        b->room--;
}

/* Marks the thread as being on a slow path; false: it is on one already, and a signal handler has come in between. */
INLINE bool heap_enter(heap *h)
{
    if (UNLIKELY(h->inside))
        return false;
    h->inside = true;
    STORE(&h->slow, h->slow + 1);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    return true;
}
INLINE void heap_leave(heap *h)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    STORE(&h->slow, h->slow + 1);
    h->inside = false;
}

/* For what takes shared locks outside of malloc and free: the calling thread's heap, marked, or NULL: it has none, or is
 * marked already. */
INLINE heap *heap_enter_mine(void)
{
    heap *h = heap_mine();
    return heap_is_real(h) && heap_enter(h) ? h : NULL;
}
INLINE void heap_leave_mine(heap *h)
{
    if (h)
        heap_leave(h);
}

void heap_init(heap *h, uint32_t number);

/* With h->lock held. */
block *heap_fill(heap *h, bin *b); /* a block, with more left in the bin; NULL: the heap has none of this class */
block *heap_fill_zeroed(heap *h, bin *b);                /* a block that reads as zero, or NULL */
void heap_give(heap *h, block *p);                       /* one block of this heap goes to its slab */
void heap_give_back(heap *h, bin *b, size_t count);      /* up to count blocks of the bin go to their slabs */
void heap_spill(heap *h, bin *b, const slab *last);      /* a part of a full bin's blocks; last: what was given back just now */
void heap_calm_bin(heap *h, bin *b);                     /* some, when the bin has not been used for a while */
bool heap_drain(heap *h, size_t blocks);                 /* takes in so many and the rest of the message; false: none came */
void heap_shed(heap *h);                                 /* all spares leave */
size_t heap_purge(slab *s);                              /* pages of a slab of h without a block in use go back; bytes of those */
void heap_accept(heap *h, slab *s);                      /* a slab whose home this already is comes in, to be used next */
slab *heap_yield(heap *h, unsigned klass, heap *to);     /* a slab with room for klass goes to another heap, or NULL */
void heap_check(heap *h, bool bins);                     /* aborts at the first breach */
/* At the end of a program: what was freed twice, is no block, or was written to since shows in its thread's bins. */
void heap_check_links(void);
void heap_ids_check(void);                               /* so does this, when a constant heap was written to; no lock */
void heap_unlock(heap *h); /* gives the lock back, and what leaves to the depot */

/* Without it. */
void heap_open_slab(heap *h, slab *s, unsigned klass); /* a slab that nobody else knows starts anew as h's */
void heap_empty_bins(heap *h); /* all blocks go to their slabs; by the heap's own thread, or after that has gone */
void heap_recount_bins(heap *h); /* after a fork: room from the blocks that are there */
void heap_flush(heap *h);      /* sends what the outboxes hold */
void heap_send(heap *to, block *chain); /* one message; any thread, any time */

INLINE void outbox_add(outbox *o, block *p, size_t size)
{
    p->next = o->chain;
    o->chain = p;
    o->count++;
    o->bytes += (uint32_t)size;
}
INLINE bool outbox_is_full(const outbox *o) { return o->count >= OUTBOX_BLOCKS || o->bytes >= OUTBOX_BYTES; }

void heap_post_rest(heap *h, outbox *o, heap *to, block *p, size_t size);

/* Into an outbox, which is sent when full. Which one says the heap's address (heaps are an odd number of pages apart, the
 * first two aside from the rest but in step with them): looking into the other heap would fetch the line that its thread
 * writes on every slow path. */
INLINE void heap_post(heap *h, heap *to, block *p, size_t size)
{
    outbox *o = &h->out[((uintptr_t)to >> 12) % OUTBOXES];
    if (LIKELY(o->to == to && o->count < OUTBOX_BLOCKS - 1 && o->bytes + size < OUTBOX_BYTES))
        outbox_add(o, p, size);
    else
        heap_post_rest(h, o, to, p, size);
}

#endif
