/* alloc.c: See alloc.h: the slow paths. */
#include "pools/alloc.h"

#include "ground/config.h"
#include "pools/depot.h"
#include "pools/fork.h"
#include "pools/guard.h"
#include "pools/learn.h"
#include "pools/misuse.h"
#include "pools/rest.h"
#include "pools/seams.h"
#include "pools/slab.h"
#include "pools/threads.h"

#include <string.h>

class_count pm_class_counts[CLASS_MAX] RARE;
bool pm_pools_ready;

/* ---- modes that count or check every call ---- */

static void count_up(unsigned klass)
{
    class_count *c = &pm_class_counts[klass];
    uint64_t n = __atomic_add_fetch(&c->allocations, 1, __ATOMIC_RELAXED) - LOAD(&c->frees);
    uint64_t peak = LOAD(&c->peak);
    while (n > peak && !__atomic_compare_exchange_n(&c->peak, &peak, n, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

static void *count_alloc(void *p, size_t size)
{
    (void)size;
    if (region_holds(p))
        count_up(slab_of(p)->klass);
    return p;
}

static void count_free(const void *p, size_t usable)
{
    (void)usable;
    if (region_holds(p))
        __atomic_add_fetch(&pm_class_counts[slab_of(p)->klass].frees, 1, __ATOMIC_RELAXED);
}

/* Its bit tells whether it was free already: that is looked at when it gets to its slab. */
static void check_free(const void *p, size_t usable)
{
    (void)usable;
    if (region_holds(p))
        slab_check_block(slab_of(p), slab_class(slab_of(p)), p);
}

void alloc_watch(void)
{
    static const watcher counts = {.alloc = count_alloc, .free = count_free}, checks = {.free = check_free};
    if (pm_config.stats.full)
        watch_register(&counts, true);
    if (pm_config.check)
        watch_register(&checks, true);
    pm_every_call_slow |= PM_HARDENED; /* nothing is kept in bins, whose blocks hold links */
}

static void check_now_and_then(heap *h)
{
    if (h->slow / 2 % 1024 != 0)
        return;
    heap_ids_check();
    heap_check(h, true);
}

/* ---- what is done now and then on slow paths ---- */

/* Every TICK: look at the clock and at a neighbour; and, once the heap is left, at what is kept of the next allocator: that one has locks
 * of its own, for which nobody may wait who is inside. True, here and below: that is to follow (leave_housekept). */
static NOINLINE bool heap_tick(heap *h)
{
    if (h->spare_idle)
        heap_shed(h);
    h->spare_idle = true;
    depot_purge(false);
    heaps_visit(h);
    return pm_storer != NULL;
}

static NOINLINE bool heap_chores(heap *h)
{
    uint32_t n = h->chores / CALM;
    rest_calm(h, &h->bins[n % classes_count()]);
    if (n % 4 == 0)
        heap_flush(h);
    return n % (TICK / CALM) == 0 && heap_tick(h);
}

INLINE bool housekeep_freed(heap *h)
{
    bool ticked = UNLIKELY(++h->chores % CALM == 0) && heap_chores(h);
    if (UNLIKELY(pm_config.check))
        check_now_and_then(h);
    return ticked;
}

INLINE void leave_housekept(heap *h, bool ticked)
{
    heap_leave(h);
    if (UNLIKELY(ticked))
        pm_storer->tick();
}

/* In the hardened library, which keeps nothing of the next allocator. */
void alloc_housekeep(heap *h) { housekeep_freed(h); }

static void request_note(block *p, size_t size)
{
    learn_note(slab_of(p), size, LOAD(&pm_registry.count) - LOAD(&pm_registry.idle_count) - 1);
}

/* Of malloc's slow paths: one that is a sample. */
static NOINLINE bool heap_sample(heap *h, block *p, size_t size)
{
    h->chores += CALM;
    h->fills = (uint16_t)(CALM - 4 + h->chores / CALM * 5 % 9); /* no beat that a program could be in step with */
    bool ticked = heap_chores(h);
    rest_sample(h);
    if (p)
        request_note(p, size);
    return ticked;
}

INLINE bool housekeep_filled(heap *h, block *p, size_t size)
{
    bool ticked = false;
    if (UNLIKELY(--h->fills == 0))
        ticked = heap_sample(h, p, size);
    else if (p && UNLIKELY(slab_of(p)->asked == 0)) /* the first one from this slab is a sample for that */
        request_note(p, size);
    if (UNLIKELY(pm_config.check))
        check_now_and_then(h);
    return ticked;
}

/* ---- shortage: at the limit, or out of memory, forwarding goes on for a while before all is searched again ---- */

#define SHORTAGE_LEAST 32 /* requests; twice as many after each search in vain */
#define SHORTAGE_MOST 1024

bool alloc_is_short(heap *h, unsigned klass)
{
    shortage *s = &h->shortage;
    if (LIKELY((s->classes >> klass & 1) == 0))
        return false;
    if (s->news != LOAD(&pm_depot.news) || LOAD(&h->bins[klass].partial) || LOAD(&h->inbox)) {
        *s = (shortage){0};
    } else if (s->left-- > 0) {
        h->overflowed++;
        return true;
    }
    s->classes = 0;
    return false;
}

static void shortage_note(heap *h, unsigned klass)
{
    shortage *s = &h->shortage;
    if (pm_config.overflow != OVERFLOW_FORWARD) /* a request that fails must have been looked for */
        return;
    h->overflowed++;
    if (s->classes == 0) {
        s->wait = (uint16_t)size_min(size_max(SHORTAGE_LEAST, (size_t)2 * s->wait), SHORTAGE_MOST);
        s->left = s->wait;
        s->news = LOAD(&pm_depot.news);
    }
    s->classes |= (uint64_t)1 << klass;
}

/* ---- malloc ---- */

#define SURPLUS_LEAST KIB /* below it, what could be saved is less than what a slow path for each block costs */

/* A block of the next larger classes, at most twice the size: better than none at the limit. */
static block *fill_larger(heap *h, unsigned klass)
{
    block *p = NULL;
    unsigned c = klass;
    while (!p && (c = class_above(c)) != CLASS_NONE && LOAD(&pm_classes[c].size) <= 2 * LOAD(&pm_classes[klass].size))
        p = heap_fill(h, &h->bins[c]);
    return p;
}

/* Rather than begin a slab: a block of the next larger classes, up to four thirds of the size, where these have come to have a slab's worth
 * of them too many. What one class has needed at one time then serves another one later. */
static block *fill_surplus(heap *h, unsigned klass)
{
    size_t size = LOAD(&pm_classes[klass].size);
    if (size < SURPLUS_LEAST || PM_HARDENED)
        return NULL;
    for (unsigned c = class_above(klass); c != CLASS_NONE && 3 * (size_t)LOAD(&pm_classes[c].size) <= 4 * size; c = class_above(c))
        if (h->bins[c].partial && bin_has_surplus(&h->bins[c]) && (!LOAD(&pm_classes_aligned) || class_lies(&pm_classes[c]) >= class_lies(&pm_classes[klass])))
            return heap_fill(h, &h->bins[c]);
    return NULL;
}

static NOINLINE block *fill_new_slab(heap *h, bin *b)
{
    block *p = fill_surplus(h, b->klass);
    if (p)
        return p;
    slab *s = heap_take_spare(h);
    p = s ? heap_begin(h, b, s) : heaps_adopt(h, b->klass) ? heap_fill(h, b) : NULL;
    if (p) /* at the limit it may be of no use */
        return p;
    s = heaps_obtain(h, b->klass);
    return s ? heap_begin(h, b, s) : fill_larger(h, b->klass);
}

block *alloc_fill(heap *h, bin *b)
{
    block *p = heap_fill(h, b);
    if (UNLIKELY(!p) && (p = fill_new_slab(h, b)) == NULL)
        shortage_note(h, b->klass);
    return p;
}

/* Gate. A block from heap 0's bins. */
static block *orphan_take(unsigned klass)
{
    heap *h = registry_orphan();
    if (alloc_is_short(h, klass) || !heap_enter(h))
        return NULL;
    block *p = alloc_fill(h, &h->bins[klass]);
    heap_leave(h);
    return p;
}

/* For a thread that has no heap any more. */
block *alloc_orphan(unsigned klass)
{
    if (!fork_hold())
        return NULL;
    os_lock_take(&pm_registry.gate);
    block *p = orphan_take(klass);
    os_lock_give(&pm_registry.gate);
    fork_release();
    return p;
}

/* Heap 0's lock is one more than ours, and its gate is above them: tried only. */
void *alloc_seen(void *p)
{
    const slab *s = slab_of(p);
    heap *h = my_heap;
    if (READ(&s->owner) != h)
        return p;
    if (!heap_enter(h))
        return NULL;
    block *other = NULL;
    if (os_lock_try(&pm_registry.gate)) {
        other = orphan_take(s->klass);
        os_lock_give(&pm_registry.gate);
    }
    heap_leave(h);
    if (other)
        free_block(p);
    return other;
}

static NOINLINE void *alloc_refill(unsigned klass, size_t size)
{
    if (UNLIKELY(!pm_pools_ready || klass >= classes_count())) /* none are malloc's where only explicit pools were wanted */
        return NULL;
    heap *h = thread_heap();
    block *p;
    if (LIKELY(h != NULL)) {
        if (UNLIKELY(alloc_is_short(h, klass) || !heap_enter(h)))
            return NULL;
        p = alloc_fill(h, &h->bins[klass]);
        leave_housekept(h, housekeep_filled(h, p, size));
    } else {
        p = alloc_orphan(klass);
    }
    return watched(p, size);
}

NOINLINE void *alloc_slow(unsigned klass, size_t size)
{
    void *p = bin_pop(&my_heap->bins[klass]); /* there may be one, as sizes are hidden */
    if (UNLIKELY(p && pm_unwatched > (int64_t)size)) {
        pm_unwatched -= (int64_t)size;
        return p;
    }
    return p ? watched(p, size) : alloc_refill(klass, size);
}

/* A block that was never handed out, of a slab that reads as zero: no memset, where that would touch a page and more. */
static block *alloc_clean(unsigned klass, size_t size)
{
    heap *h = my_heap;
    if (!heap_is_real(h) || h->bins[klass].free || !heap_enter(h))
        return NULL;
    block *p = heap_fill_zeroed(h, &h->bins[klass]);
    leave_housekept(h, p && housekeep_filled(h, p, size));
    return p;
}

void *alloc_zeroed(unsigned klass, size_t size)
{
    block *p = size >= 4 * KIB && !calls_watched() ? alloc_clean(klass, size) : NULL;
    if (p)
        return p;
    p = alloc_slow(klass, size);
    return p ? memset(p, 0, size) : NULL;
}

/* ---- free ---- */

static NOINLINE void free_look(void *p, slab *s)
{
    (void)p; /* where free_full has it */
    heap *h = my_heap;
    if (UNLIKELY(!heap_enter(h))) {
        heap_tell(s);
        return;
    }
    if (heap_look(h, s))
        rest_near(h, s);
    leave_housekept(h, housekeep_freed(h));
}

/* A signal handler's, in the midst of a slow path, which may be at the slab's chain. */
static NOINLINE void free_interrupting(void *p, slab *s) { block_send(s, p); }

/* The block goes to its slab's chain: the slab is this thread's own. The link is written before the head, and the head before the
 * count: who sees that all are home finds them there. */
NOINLINE void free_full(void *p, slab *s, heap *h, bin *b)
{
    b->room++;
    if (UNLIKELY(h->inside)) {
        free_interrupting(p, s);
        return;
    }
    ((block *)p)->next = s->chain;
    __atomic_signal_fence(__ATOMIC_RELEASE);
    s->chain = p;
    __atomic_signal_fence(__ATOMIC_RELEASE);
    if (UNLIKELY(slab_out_down(s)))
        free_look(p, s);
}

#define SENT_ALONE 32

static NOINLINE void free_odd(void *p, slab *s)
{
    heap *home = LOAD(&s->home), *h = my_heap;
    if (UNLIKELY(home == HEAP_NOBODY || home == NULL))
        misuse_abort(&(misuse){.pointer = p, .what = "double free, or no block was handed out there"});
    if (UNLIKELY(home == HEAP_POOL)) {
        guests_here()->free(p, s);
        return;
    }
    if (UNLIKELY(calls_watched()))
        watch_free(p, block_size_of(p));
    if (UNLIKELY(!heap_is_real(h) || !heap_enter(h))) {
        block_send(s, p);
        if (h == HEAP_NONE && remote_count(LOAD(&s->remote)) >= SENT_ALONE)
            thread_heap(); /* for the next ones: a thread that frees a few makes none */
        return;
    }
    if (home == h)
        heap_give(h, p);
    leave_housekept(h, (home == h || run_join(h, s, p)) && housekeep_freed(h));
}

NOINLINE void free_other(void *p, slab *s)
{
    heap *home = LOAD(&s->home), *h = my_heap;
    if (UNLIKELY(!heap_is_real(home) || !heap_is_real(h) || calls_watched() || !heap_post(h, s, p)))
        free_odd(p, s);
}

/* ---- whole pools ---- */

/* Every empty slab goes to the depot, when h is left. */
static void slabs_gather(heap *h)
{
    heaps_trim(h);
    if (h)
        thread_drop(h); /* what came home meanwhile, too */
    if (guests_here())
        guests_here()->shed();
}

/* Memory waits for nobody: where another thread forks, there is none. */
static bool gather_at_once(heap *h)
{
    if (!heap_enter(h))
        return false;
    thread_drop(h);
    slabs_gather(h);
    heap_leave(h);
    return true;
}

bool pools_shrink(void)
{
    static uint32_t looked; /* depot.news + 1 after the last time; atomic, relaxed */
    bool again = LOAD(&pm_depot.news) + 1 != LOAD(&looked);
    heap *h = thread_heap();
    if (!h || h->inside || (again && !gather_at_once(h)) || !heap_enter(h))
        return false;
    if (again)
        depot_purge(true);
    bool closed = guard_shed(), less = depot_shrink() || closed;
    heap_leave(h);
    STORE(&looked, LOAD(&pm_depot.news) + 1);
    return less;
}

size_t pools_trim(void)
{
    size_t bytes = pm_storer ? pm_storer->trim() : 0;
    thread_idle();
    heap *h = heap_enter_mine();
    slabs_gather(h);
    heap_leave_mine(h);
    h = heap_enter_mine();
    bytes += depot_purge(true);
    bytes += heaps_purge(h);
    heap_leave_mine(h);
    return bytes;
}

void pools_check(void)
{
    depot_check();
    heaps_check();
    if (guests_here())
        guests_here()->check();
}
