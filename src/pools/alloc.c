/* alloc.c: See alloc.h: the slow paths, and the start of the pools. */
#include "pools/alloc.h"

#include "ground/config.h"
#include "pools/depot.h"
#include "insight/profile.h"
#include "pools/registry.h"
#include "ground/text.h"

#include <string.h>

class_count pm_class_counts[CLASS_MAX] RARE;
uint64_t pm_forwarded_elsewhere;
const char *pm_next_name = "none";
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

static void note_alloc(block *p)
{
    if (p && pm_config.stats.full)
        count_up(slab_of(p)->klass);
}

static void note_free(const block *p, const slab *s)
{
    if (pm_config.check) /* its bit tells whether it was free already: that is looked at when it gets to its slab */
        slab_check_block(s, &pm_classes[LOAD(&s->klass)], p);
    if (pm_config.stats.full)
        __atomic_add_fetch(&pm_class_counts[s->klass].frees, 1, __ATOMIC_RELAXED);
    if (pm_profiling)
        profile_free(p);
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
    registry_visit_one(h);
}

/* What is done now and then on slow paths. */
INLINE void heap_housekeep(heap *h)
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
        bool adopted = registry_adopt(h, b->klass);
        slab *s = adopted ? NULL : registry_obtain(h, b->klass);
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

static block *fill(heap *h, bin *b)
{
    os_lock_take(&h->lock);
    heap_drain(h, DRAIN_BLOCKS);
    block *p = heap_fill(h, b);
    heap_unlock(h);
    return LIKELY(p != NULL) ? p : fill_new_slab(h, b);
}

/* A block from the first heap's bins, for a thread that has no heap any more. */
static block *fill_orphan(unsigned klass)
{
    os_lock_take(&pm_registry.gate);
    heap *h = registry_orphan();
    block *p = fill(h, &h->bins[klass]);
    os_lock_give(&pm_registry.gate);
    return p;
}

NOINLINE void *alloc_slow(unsigned klass)
{
    if (UNLIKELY(!pm_pools_ready || klass >= pm_class_count)) /* none are malloc's where only explicit pools were wanted */
        return NULL;
    heap *h = registry_my_heap();
    block *p;
    if (LIKELY(h != NULL)) {
        if (UNLIKELY(!heap_enter(h))) {
            __atomic_add_fetch(&pm_registry.reentries, 1, __ATOMIC_RELAXED);
            return NULL;
        }
        p = fill(h, &h->bins[klass]);
        heap_housekeep(h);
        if (UNLIKELY(pm_config.check))
            check_now_and_then(h);
        heap_leave(h);
    } else {
        p = fill_orphan(klass);
    }
    if (UNLIKELY(pm_every_call_slow))
        note_alloc(p);
    return p;
}

/* A block that was never handed out, of a slab that reads as zero: no memset, where that would touch a page and more. */
static block *alloc_clean(unsigned klass)
{
    heap *h = my_heap;
    if (!heap_is_real(h) || h->bins[klass].free || !heap_enter(h))
        return NULL;
    os_lock_take(&h->lock);
    block *p = heap_fill_zeroed(h, &h->bins[klass]);
    heap_unlock(h);
    heap_leave(h);
    return p;
}

void *alloc_zeroed(unsigned klass)
{
    size_t size = pm_classes[klass].size;
    block *p = size >= 4 * KIB && !pm_every_call_slow ? alloc_clean(klass) : NULL;
    if (p)
        return p;
    p = alloc_class(klass);
    return p ? memset(p, 0, size) : NULL;
}

/* ---- free ---- */

/* This block and a part of the bin go back to their slabs under one hold of the lock. */
NOINLINE void free_full(void *p, bin *b)
{
    heap *h = my_heap;
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
    heap_housekeep(h);
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

static void free_explicit(void *p, pm_pool *pool)
{
    if (!pool)
        report_abort("free(%p): memory of an arena", p);
    pm_pool_free(pool, p);
}

static NOINLINE void free_odd(void *p, slab *s)
{
    heap *home = LOAD(&s->home), *h = registry_my_heap();
    if (UNLIKELY(home == HEAP_NOBODY || home == NULL))
        report_abort("free(%p): no block is in use there: freed twice, or never handed out", p);
    if (UNLIKELY(home == HEAP_POOL)) {
        free_explicit(p, LOAD(&s->pool));
        return;
    }
    if (UNLIKELY(pm_every_call_slow))
        note_free(p, s);
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

NOINLINE void free_other(void *p, slab *s)
{
    heap *home = LOAD(&s->home), *h = my_heap;
    if (UNLIKELY(!heap_is_real(home) || !heap_is_real(h) || pm_every_call_slow || !heap_enter(h))) {
        free_odd(p, s);
        return;
    }
    heap_post(h, home, p, pm_classes[LOAD(&s->klass)].size);
    heap_leave(h);
}

/* ---- whole pools ---- */

size_t pools_trim(void)
{
    registry_thread_idle();
    heap *h = heap_enter_mine();
    registry_trim();
    heap_leave_mine(h);
    registry_thread_idle(); /* what came home meanwhile */
    h = heap_enter_mine();
    pools_shed_all();
    size_t bytes = depot_purge(true);
    bytes += registry_purge();
    heap_leave_mine(h);
    return bytes;
}

void pools_check(void)
{
    depot_check();
    registry_check();
    pools_check_all();
}

static void reserve_counts(void)
{
    bool lock = pm_config.lock, prefault = pm_config.prefault;
    for (unsigned c = 0; c < pm_class_count; c++) {
        const block_size *wish = &pm_config.sizes.at[c];
        size_t per_slab = pm_classes[c].per_slab, slabs = (wish->count + per_slab - 1) / per_slab;
        size_t got = slabs ? depot_reserve(c, slabs, prefault, &lock) : 0;
        if (got < slabs)
            report("POOLMALLOC_BLOCK_SIZES: '%u:%u': %s; %zu blocks are pre-allocated", wish->size, wish->count,
                   pm_config.limit ? "beyond POOLMALLOC_LIMIT" : "no memory for so many", got * per_slab);
    }
    if (lock != pm_config.lock)
        report("POOLMALLOC_LOCK: '1' is refused by the system (RLIMIT_MEMLOCK?); the pools are not locked");
}

static void tell_readers(void)
{
    control *c = region_control();
    c->classes = pm_classes;
    c->class_count = &pm_class_count;
    c->class_counts = pm_class_counts;
    c->depot = &pm_depot;
    c->config = &pm_config;
    c->pools = &pm_pools;
    c->pool_home = HEAP_POOL;
    c->forwarded = &pm_forwarded_elsewhere;
    c->next = &pm_next_name;
    __atomic_store_n(&c->registry, &pm_registry, __ATOMIC_RELEASE); /* last: whoever finds it finds all */
}

bool pools_init(void)
{
    static bool tried;
    if (tried) /* and failed: what it left behind is not fit for a second time */
        return false;
    tried = true;
    registry_forks_register();
    classes_init(&pm_config.sizes);
    pm_every_call_slow = pm_config.check || pm_config.stats.full || pm_profiling;
    if (pm_config.limit && pm_config.limit < LIMIT_SMALLEST)
        report("POOLMALLOC_LIMIT: '%zu' is below 8M: it is obeyed, but a slab of 128 KiB for each block size soon fills it",
               pm_config.limit);
    if (!region_init(registry_front()) || !registry_init())
        return false;
    reserve_counts();
    tell_readers();
    __atomic_store_n(&pm_pools_ready, true, __ATOMIC_RELEASE); /* bringup_done acquires */
    return true;
}
