/* heap.h: one thread's view of all pools: bins, slabs, runs of blocks on their way to other heaps.
 * malloc and free touch my_heap and one bin of it; all else happens on the slow paths of heap.c. */
#pragma once

#include "ground/base.h"
#include "ground/os.h"
#include "pools/class.h"
#include "pools/depot.h"
#include "pools/heap_ids.h"
#include "pools/kept.h"
#include "pools/region.h"
#include "pools/seams.h"
#include "pools/slab.h"

/* Blocks of one class at hand. free and room belong to the thread alone; partial to the holder of heap.lock.
 *   blocks in the bin = limit - room;  room <= limit. Below zero, when it was filled with all that came back to a slab: then, too,
 *   free() goes on to the slab's chain. */
struct bin {
    block *free;
    int32_t room;
    uint16_t limit;   /* its class's, up to four times that where it runs full and empty by turns. 0 at the end of a fall, in a guest's
                         bin until it is used, and always in modes that see every call */
    uint8_t klass;
    uint8_t pace;     /* doublings of what it gets at once, and how often of fresh memory: one more with each refill, one less with each look */
    slab *partial;    /* a ring of slabs with free blocks; the first is taken from, one that gets its first goes last */
    block *seen;      /* the first block at the last look: the same at the next one means that the bin is at rest */
};
#define PACE_MOST 5
#define PACE_FIRST 4 /* part of a class's refill that a bin begins with: most of what a short thread would get it would never use */
#define PACE_FRESH 3 /* refills with fresh memory for a doubling of that, too */
#define PACE_END (PACE_MOST + 3 * PACE_FRESH)
INLINE uint8_t pace_less(uint8_t pace) { return (uint8_t)(pace > PACE_MOST ? pace - PACE_FRESH : pace - (pace > 0)); }
static_assert(sizeof(bin) == BIN_SIZE && BIN_SIZE == HEAP_ID_BYTES, "");

/* Blocks of one slab of another heap's, on their way: one chain, given back at once. */
typedef struct block_run {
    slab *slab; /* NULL: none */
    block *first;
    uint32_t last; /* where that block lies in the slab, in bytes */
    uint16_t count, most; /* blocks; most: that are collected */
} block_run;

#define RUN_SETS 16   /* by the slab's number; a set has RUN_WAYS */
#define RUN_WAYS 4
#define RUNS ((size_t)RUN_SETS * RUN_WAYS)
#define SPARES 2      /* empty slabs that a heap keeps for its next need, at least */
#define TICK 256      /* slow paths between two looks at the clock */
#define CALM 16       /* slow paths between two looks at a bin, one after the other: blocks at rest pin slabs; and between two samples */

typedef enum { HEAP_UNUSED, HEAP_LIVE, HEAP_IDLE } heap_state;

/* heap.lock. Its thread takes it on each slow path and need not look back when it gives it; all others only try. */
enum { HEAP_FREE, HEAP_MINE, HEAP_OTHERS, HEAP_AWAITED /* others', and its thread sleeps */ };

/* Classes for which all was searched in vain. */
typedef struct shortage {
    uint64_t classes; /* bits */
    uint16_t left;    /* requests before the next search */
    uint16_t wait;    /* what left began with */
    uint32_t news;    /* the depot's at the last one */
} shortage;

/* What the thread gives back when it comes down: see rest.h. */
typedef struct rest_state {
    bool down;         /* it came down, and was not busy since: bins have a limit of 0, and get one block at a time */
    uint16_t falls;    /* slabs that came near their end since a bin was filled */
    uint32_t fell, thinned; /* blocks that falls have sent home, and of slabs that were thinned, since `renewed` */
    uint32_t renewed, sampled; /* ms; sampled: the last look at whether it is busy */
} rest_state;
#define THIN_BLOCKS 2048 /* that go to the bits for thinning within a purge delay */

struct heap {
    bin bins[CLASS_MAX]; /* malloc's; first: the table of bin offsets counts from here */

    uint32_t lock;   /* guards the bins' partial, told, spare, leaving, and what slab.h says of the slabs whose home this is */
    bool inside;     /* the thread is on a slow path: a signal handler that comes here must not, and a fork waits */
    uint8_t state;   /* heap_state; changes with the lock held, but for heap 0's. Without it, a hint: live (release) after epoch and thread (acquire) */
    bool spare_idle; /* no spare was used since the last tick */
    bool posted;     /* some run may not be empty */
    uint32_t number; /* index in the registry */
    uint32_t epoch;  /* fork generation in which the thread lived */
    uint32_t thread; /* its id, by which it is found to have ended */
    uint32_t chores; /* slow paths of free, and CALM for each CALM of malloc: what is done now and then counts by them */
    uint64_t next_idle; /* its number, or 0; atomic */
    uint64_t slow;   /* slow paths begun and ended: odd while inside; tells the live view a quiet heap from a busy one */
    uint64_t forwarded, overflowed; /* calls handed to the next allocator; those for want of pool memory */
    uint64_t runs_sent, blocks_sent; /* to other heaps */
    slab *told;      /* taken from the inbox, not yet looked at */
    slab *spare;     /* empty slabs, linked by next */
    slab *leaving;   /* empty slabs that go to the depot when the lock is given back */
    uint16_t spares;
    uint16_t fills;  /* slow paths of malloc until the next sample */
    handful handful;       /* empty slabs that it may keep, beyond SPARES */
    block_run runs[RUN_SETS][RUN_WAYS];
    shortage shortage; /* the thread's */
    rest_state rest;       /* the thread's */
    uint64_t stuck;    /* slow + 1, when a fork waited for this heap in vain */
    struct keeper *keeper; /* the hardened library's (keeper.h); made by its thread, NULL until then, and in the heaps that are none */

    /* Slabs to which blocks came back from other threads, linked by told. Push by compare-and-swap (release), taken whole by
     * exchange (acquire). On a line of its own: every other thread writes here. */
    _Alignas(64) slab *inbox;

    kept_bins kept; /* of the next allocator */
    uint32_t grown[32]; /* realloc's: blocks to which a buffer has moved to grow, by a hash: 28 bits of the address, and how often */

    bin pool_bins[POOL_BINS]; /* of explicit pools; limit 0 while not in use */
};

#define NO_HEAPS_BYTES (sizeof(heap) + 3 * HEAP_ID_BYTES) /* of pm_no_heaps */

/* What a heap touches of itself in a program without explicit pools and large blocks. */
#define HEAP_TOUCHED round_up(offsetof(heap, kept), 4 * KIB)
static_assert(offsetof(heap, kept) <= 4 * KIB, "one page");

extern __thread heap *my_heap __attribute__((visibility("hidden")));
extern __thread int64_t pm_unwatched __attribute__((visibility("hidden"))); /* bytes that it may ask for unseen, while sizes are hidden */

/* The calling thread's id: its heap knows it; the kernel is a system call away. */
INLINE uint32_t heap_thread(void) { return heap_is_real(my_heap) && my_heap->thread > 0 ? my_heap->thread : os_thread(); }

INLINE bin *bin_of_size(heap *h, size_t size)
{
    return (bin *)((char *)h + READ(&pm_bin_offset[(size + QUANTUM - 1) / QUANTUM]));
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

/* What the short way would have found, had the sizes not been hidden, and if nobody is to see it; or NULL. */
INLINE void *bin_pop_unwatched(size_t size)
{
    if (LIKELY(pm_unwatched <= (int64_t)size))
        return NULL;
    void *p = bin_pop((bin *)((char *)my_heap + READ(&pm_sizes_aside[(size + QUANTUM - 1) / QUANTUM])));
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

/* ---- the lock ---- */

void heap_lock_wait(heap *h);

/* Another thread's. False: it is held. */
INLINE bool heap_lock_try(heap *h)
{
    uint32_t free = HEAP_FREE;
    return __atomic_compare_exchange_n(&h->lock, &free, HEAP_OTHERS, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* Threads in the midst of a fork: see fork.h. Here because each slow path looks at it. */
extern uint32_t pm_forking __attribute__((visibility("hidden")));
bool heap_enter_forking(heap *h); /* h is entered already; false: it is left again */

/* The calling thread begins a slow path: its heap is locked. False: it is on one already, and a signal handler has come in
 * between; or another thread forks. The lock's exchange stands before the look at pm_forking, as a forking thread's stands before
 * its look at `inside`: one of the two sees the other. */
INLINE bool heap_enter(heap *h)
{
    uint32_t free = HEAP_FREE;
    if (UNLIKELY(h->inside))
        return false;
    STORE(&h->inside, true);
    STORE(&h->slow, h->slow + 1);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (UNLIKELY(!__atomic_compare_exchange_n(&h->lock, &free, HEAP_MINE, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)))
        heap_lock_wait(h);
    return LIKELY(__atomic_load_n(&pm_forking, __ATOMIC_SEQ_CST) == 0) || heap_enter_forking(h);
}
void heap_part(heap *h); /* what leaves goes to the depot */
INLINE void heap_leave(heap *h)
{
    if (UNLIKELY(h->leaving != NULL))
        heap_part(h);
    __atomic_store_n(&h->lock, HEAP_FREE, __ATOMIC_RELEASE);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    STORE(&h->slow, h->slow + 1);
    __atomic_store_n(&h->inside, false, __ATOMIC_RELEASE); /* what was done is done for a fork that waits */
}

/* For what takes shared locks outside of malloc and free: the calling thread's heap, entered, or NULL: it has none, or is inside
 * already. Waits for a fork, for ten seconds at most (fork.h). In pairs, one within the other. */
heap *heap_enter_mine(void);
void heap_leave_mine(heap *h);

/* ---- the end of a slab: when free() is to come to a slow path next ---- */

INLINE size_t slab_few(const size_class *c) { return size_min(size_max(c->per_slab / 4, 1), 8); } /* on a quarter of its pages, or so */
/* Near its end, what is out may be just what the bin has at hand; where that keeps nothing, the slab may thin. */
INLINE size_t slab_last(const slab *s, const size_class *c)
{
    const bin *b = s->bin;
    if (b->limit == 0)
        return s->home->rest.thinned < THIN_BLOCKS ? slab_few(c) : 0;
    return size_max(size_max(c->per_slab / 32, 1), (size_t)(b->limit - b->room));
}
INLINE bool slab_is_near(const slab *s, const size_class *c) { return slab_out(s) <= slab_returned(s) + slab_last(s, c); }

/* Near its end, and when all is home, but for what others have still to tell of. True: it is near its end. */
INLINE bool slab_look_set(slab *s, const size_class *c)
{
    size_t home = slab_returned(s), near = home + slab_last(s, c), out = slab_out(s);
    STORE(&s->look, (uint16_t)(out > near ? near : home));
    slab_out_set(s, out);
    return out <= near;
}

void heap_init(heap *h, uint32_t number);

/* With the lock, by the heap's thread. */
block *heap_fill(heap *h, bin *b);        /* a block, with more left in the bin; NULL: no slab of the heap's has one */
slab *heap_take_spare(heap *h);           /* an empty slab that was kept, or NULL */
block *heap_begin(heap *h, bin *b, slab *s); /* an empty slab of nobody's becomes the empty bin's; a block of it */
bool bin_has_surplus(const bin *b);       /* as many free blocks as a slab has */
block *heap_fill_zeroed(heap *h, bin *b); /* a block that reads as zero, or NULL */
void heap_give(heap *h, block *p);        /* one block of this heap goes to its slab's bits */
/* Several, with no link in them, for the hardened library: from the first partial slab, if that has any to take; those of the first
 * one's slab go back, and are counted. */
size_t heap_deal(heap *h, bin *b, block **blocks, size_t most);
size_t heap_give_these(heap *h, block *const *blocks, size_t count);
bool heap_look(heap *h, slab *s);         /* a block came home to s: it may have to be listed, or may be empty; true: it is near its end */
void bin_limit_set(bin *b, size_t limit); /* it keeps so many from now on */
void bin_home(heap *h, bin *b, size_t count); /* so many blocks at hand go to their slabs */
void slab_emptied(heap *h, slab *s);      /* all of its blocks are home */
void heap_empty_bins(heap *h);
void heap_gather(heap *h);                /* all that came home to any slab is in its bits */
void heap_recount(heap *h);               /* after a fork: bins and slabs */

/* With the lock, by any thread. */
void heap_hear(heap *h, size_t most); /* what the inbox tells of, at most so many slabs */
void heap_sweep(heap *h);             /* what became empty unnoticed is found. O(slabs) */
void heap_shed(heap *h);              /* all spares leave */
void heap_unlock(heap *h);  /* by another thread than the heap's; and what leaves goes to the depot */
void heap_accept(heap *h, slab *s);                   /* an open slab whose home this is comes in, to be used next */
void heap_keep(heap *h, slab *s);                     /* an empty slab of nobody's becomes a spare */
slab *heap_yield(heap *h, unsigned klass, heap *to);  /* takes a slab with free blocks out and settles it in `to`; or NULL */
void heap_check(heap *h, bool mine);

/* ---- blocks to other heaps; by the heap's thread ---- */

/* With the lock: p joins a run of its slab, or begins one; true: one that was full, or in the way, was sent. */
bool run_join(heap *h, slab *s, block *p);
void heap_flush(heap *h); /* sends all runs */
/* One block, from a thread that has no heap or must not touch it now. */
void block_send(slab *s, void *p);
/* Its heap is to look at a slab. Whoever has set its REMOTE_TOLD. */
void slab_tell(slab *s);
void heap_tell(slab *s); /* the same, from whoever has not; nothing when it is being told of already */
/* Threads in the midst of one of these outside of a slow path, for which a fork does not wait; and how often this thread is. */
extern uint32_t pm_tellers;
extern __thread uint32_t pm_tells __attribute__((visibility("hidden")));

/* Heaps take slabs by the handful, so that those in use lie at even steps. */
INLINE block_run *runs_of(heap *h, const slab *s)
{
    size_t n = slab_index(s);
    return h->runs[(n ^ n / RUN_SETS) % RUN_SETS];
}

/* A block of another heap's slab joins its run, without the lock. False: there is none, or it is full. */
INLINE bool heap_post(heap *h, slab *s, void *p)
{
    block_run *r = runs_of(h, s);
    for (int way = 1; UNLIKELY(r->slab != s); way++, r++)
        if (way == RUN_WAYS)
            return false;
    if (UNLIKELY(r->count >= r->most))
        return false;
    ((block *)p)->next = r->first;
    __atomic_signal_fence(__ATOMIC_RELEASE);
    r->first = p;
    r->count++;
    return true;
}
