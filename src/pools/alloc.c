/* alloc.c: See alloc.h: the slow paths. */
#include "pools/alloc.h"

#include "ground/config.h"
#include "pools/depot.h"
#include "pools/seams.h"
#include "pools/slab.h"
#include "pools/threads.h"
#include "ground/text.h"

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

static void count_alloc(const void *p, size_t size)
{
    (void)size;
    if (region_holds(p))
        count_up(slab_of(p)->klass);
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
    os_lock_take(&h->lock);
    heap_check(h, true);
    os_lock_give(&h->lock);
}

/* ---- malloc ---- */

/* Every TICK slow paths: look at the clock and at a neighbour. */
static NOINLINE void heap_tick(heap *h)
{
    if (h->spare_idle) {
        os_lock_take(&h->lock);
        heap_shed(h);
        heap_unlock(h);
    }
    h->spare_idle = true;
    depot_purge(false);
    heaps_visit_one(h);
    if (pm_storer)
        pm_storer->tick();
}

/* What is done now and then on slow paths. */
void alloc_housekeep(heap *h)
{
    uint32_t n = ++h->chores;
    if (LIKELY(n % CALM != 0))
        return;
    heap_flush(h);
    os_lock_take(&h->lock);
    heap_calm_bin(h, &h->bins[n / CALM % pm_class_count]);
    heap_unlock(h);
    if (n % TICK == 0)
        heap_tick(h);
}

/* A block of the next larger classes, at most twice the size: better than none at the limit. */
static block *fill_larger(heap *h, unsigned klass)
{
    block *p = NULL;
    if (klass >= pm_class_count)
        return NULL;
    os_lock_take(&h->lock);
    for (unsigned c = klass + 1; !p && c < pm_class_count && pm_classes[c].size <= 2 * pm_classes[klass].size; c++)
        p = heap_fill(h, &h->bins[c]);
    heap_unlock(h);
    return p;
}

/* An adopted slab may be gone again, emptied by who took our messages in, before we come to it: then once more. */
static block *fill_new_slab(heap *h, bin *b)
{
    for (int tries = 0; tries < 3; tries++) {
        bool adopted = heaps_adopt(h, b->klass);
        slab *s = adopted ? NULL : heaps_obtain(h, b->klass);
        if (!s && !adopted)
            break;
        os_lock_take(&h->lock);
        if (s)
            heap_accept(h, s);
        block *p = heap_fill(h, b);
        heap_unlock(h);
        if (p)
            return p;
    }
    return fill_larger(h, b->klass);
}

block *alloc_fill(heap *h, bin *b)
{
    os_lock_take(&h->lock);
    heap_drain(h, DRAIN_BLOCKS);
    block *p = heap_fill(h, b);
    heap_unlock(h);
    return LIKELY(p != NULL) ? p : fill_new_slab(h, b);
}

/* A block from the first heap's bins, for a thread that has no heap any more. */
block *alloc_orphan(unsigned klass)
{
    os_lock_take(&pm_registry.gate);
    heap *h = registry_orphan();
    block *p = alloc_fill(h, &h->bins[klass]);
    os_lock_give(&pm_registry.gate);
    return p;
}

static NOINLINE void *alloc_refill(unsigned klass, size_t size)
{
    if (UNLIKELY(!pm_pools_ready || klass >= pm_class_count)) /* none are malloc's where only explicit pools were wanted */
        return NULL;
    heap *h = thread_heap();
    block *p;
    if (LIKELY(h != NULL)) {
        if (UNLIKELY(!heap_enter(h)))
            return NULL;
        p = alloc_fill(h, &h->bins[klass]);
        alloc_housekeep(h);
        if (UNLIKELY(pm_config.check))
            check_now_and_then(h);
        heap_leave(h);
    } else {
        p = alloc_orphan(klass);
    }
    return watched(p, size);
}

NOINLINE void *alloc_slow(unsigned klass, size_t size)
{
    void *p = UNLIKELY(my_heap == HEAP_LENT) ? bin_pop(&pm_lent->bins[klass]) : NULL;
    return p ? watched(p, size) : alloc_refill(klass, size);
}

/* A block that was never handed out, of a slab that reads as zero: no memset, where that would touch a page and more. */
static block *alloc_clean(unsigned klass)
{
    heap *h = heap_mine();
    if (!heap_is_real(h) || h->bins[klass].free || !heap_enter(h))
        return NULL;
    os_lock_take(&h->lock);
    block *p = heap_fill_zeroed(h, &h->bins[klass]);
    heap_unlock(h);
    heap_leave(h);
    return p;
}

void *alloc_zeroed(unsigned klass, size_t size)
{
    size_t bytes = pm_classes[klass].size;
    block *p = bytes >= 4 * KIB && !pm_every_call_slow ? alloc_clean(klass) : NULL;
    if (p)
        return watched(p, size);
    p = alloc_class(klass, size);
    return p ? memset(p, 0, bytes) : NULL;
}

/* ---- free ---- */

/* This block and a part of the bin go back to their slabs under one hold of the lock. */
NOINLINE void free_full(void *p, bin *b)
{
    heap *h = heap_mine();
    b->room++;
    if (UNLIKELY(!heap_enter(h))) {
        ((block *)p)->next = NULL;
        heap_send(h, p);
        return;
    }
    os_lock_take(&h->lock);
    heap_give(h, p);
    heap_spill(h, b, slab_of(p));
    heap_unlock(h);
    alloc_housekeep(h);
    heap_leave(h);
}

static void free_mine(heap *h, void *p)
{
    os_lock_take(&h->lock);
    heap_give(h, p);
    heap_unlock(h);
    if (pm_config.check)
        check_now_and_then(h);
}

static NOINLINE void free_odd(void *p, slab *s)
{
    heap *home = LOAD(&s->home), *h = thread_heap();
    if (UNLIKELY(home == HEAP_NOBODY || home == NULL))
        report_abort("free(%p): no block is in use there: freed twice, or never handed out", p);
    if (UNLIKELY(home == HEAP_POOL)) {
        guests_here()->free(p, s);
        return;
    }
    if (UNLIKELY(calls_watched()))
        watch_free(p, block_size_of(p));
    if (UNLIKELY(!h || !heap_enter(h))) {
        ((block *)p)->next = NULL;
        heap_send(home, p);
        return;
    }
    if (home == h)
        free_mine(h, p);
    else
        heap_post(h, home, p, pm_classes[s->klass].size);
    heap_leave(h);
}

/* What would have taken the short way, had its heap not been lent. */
static NOINLINE void free_lent(void *p, slab *s)
{
    if (LOAD(block_mark(p)))
        watch_free(p, block_size_of(p));
    if (!LOAD(&pm_asked))
        thread_heap();
    free_to_bin(p, LOAD(&s->bin));
}

NOINLINE void free_other(void *p, slab *s)
{
    if (UNLIKELY(my_heap == HEAP_LENT) && LOAD(&s->owner) == pm_lent) {
        free_lent(p, s);
        return;
    }
    heap *home = LOAD(&s->home), *h = my_heap;
    if (UNLIKELY(!heap_is_real(home) || !heap_is_real(h) || calls_watched() || !heap_enter(h))) {
        free_odd(p, s);
        return;
    }
    heap_post(h, home, p, pm_classes[LOAD(&s->klass)].size);
    heap_leave(h);
}

/* ---- whole pools ---- */

size_t pools_trim(void)
{
    size_t bytes = pm_storer ? pm_storer->trim() : 0;
    thread_idle();
    heap *h = heap_enter_mine();
    heaps_trim();
    heap_leave_mine(h);
    thread_idle(); /* what came home meanwhile */
    h = heap_enter_mine();
    if (guests_here())
        guests_here()->shed();
    bytes += depot_purge(true);
    bytes += heaps_purge();
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
