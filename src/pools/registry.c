/* registry.c: See registry.h. */
#include "pools/registry.h"

#include "ground/config.h"
#include "pools/depot.h"
#include "explicit/pool.h"

#include <pthread.h>

#define VISITS 8 /* heaps looked at in one go */
#define VISIT_BLOCKS 512

registry pm_registry;
static pthread_key_t key;

/* Few programs need it: a page of each process stays untouched. Under the gate. */
heap *registry_orphan(void)
{
    heap *h = registry_heap(0);
    if (UNLIKELY(h->state == HEAP_UNUSED)) {
        os_lock_take(&pm_registry.lock);
        heap_init(h, 0);
        h->state = HEAP_LIVE;
        os_lock_give(&pm_registry.lock);
    }
    return h;
}

/* What a heap takes of the limit: what it touches. */
static size_t heap_cost(void) { return pm_config.prefault ? pm_registry.stride : HEAP_TOUCHED; }

/* Room for one heap more, zeroed. Registry lock. */
static heap *heap_map(void)
{
    registry *r = &pm_registry;
    if (pm_config.limit && (r->count + 1) * heap_cost() > pm_config.limit / 4)
        return NULL; /* threads beyond this share the orphan */
    if (r->count >= HEAPS_FIRST && !region_cover_heaps((r->count + 1 - HEAPS_FIRST) * r->stride, r->stride))
        return NULL;
    heap *h = registry_heap(r->count);
    size_t before = (uintptr_t)h % os_page_size();
    if (pm_config.prefault)
        os_populate((char *)h - before, round_up(before + sizeof(heap), os_page_size()));
    STORE(&pm_depot.heap_bytes, pm_depot.heap_bytes + heap_cost());
    STORE(&r->count, r->count + 1);
    return h;
}

static void thread_end(void *h) { registry_thread_exit(h); }

size_t registry_front(void) { return HEAPS_FIRST * (pm_registry.stride = round_up(sizeof(heap), os_page_size())); }

bool registry_init(void)
{
    pm_registry.first = pm_region.front;
    pm_registry.heaps = pm_region.heaps.base;
    return pthread_key_create(&key, thread_end) == 0 && heap_map() == registry_heap(0);
}

void registry_unload(void) { pthread_key_delete(key); }

/* ---- idle heaps ---- */

/* Registry lock; the heap's thread is gone, its bins are empty. */
static void idle_push(heap *h)
{
    h->state = HEAP_IDLE;
    h->next_idle = pm_registry.idle;
    pm_registry.idle = h;
    STORE(&pm_registry.idle_count, pm_registry.idle_count + 1);
}

static heap *idle_pop(void)
{
    heap *h = pm_registry.idle;
    if (h) {
        pm_registry.idle = h->next_idle;
        STORE(&pm_registry.idle_count, pm_registry.idle_count - 1);
    }
    return h;
}

/* After a fork, heaps of the parent's other threads are looked at when somebody is short: one on whose thread's slow
 * path the fork fell is closed for good, any other becomes idle. At most `most` heaps. Registry lock. */
static void forked_collect(int most)
{
    registry *r = &pm_registry;
    for (; r->forked > 1 && most > 0; most--) {
        heap *h = registry_heap(--r->forked);
        if (h->state != HEAP_LIVE || h->epoch == r->epoch)
            continue;
        if (h->inside || os_lock_held(&h->lock)) {
            h->state = HEAP_CLOSED;
            continue;
        }
        heap_recount_bins(h);
        pools_recount_bins(h);
        heap_flush(h);
        heap_empty_bins(h);
        pools_empty_bins(h);
        idle_push(h);
    }
}

/* ---- a thread's heap ---- */

static heap *heap_claim(void)
{
    registry *r = &pm_registry;
    os_lock_take(&r->lock);
    if (!r->idle && r->forked > 1)
        forked_collect(VISITS);
    heap *h = idle_pop();
    if (!h && (h = heap_map()) != NULL)
        heap_init(h, r->count - 1);
    if (h) {
        h->state = HEAP_LIVE;
        h->epoch = r->epoch;
    }
    os_lock_give(&r->lock);
    return h;
}

heap *registry_my_heap(void)
{
    heap *h = my_heap;
    if (LIKELY(heap_is_real(h)))
        return h;
    if (h == HEAP_GONE)
        return NULL;
    h = heap_claim();
    if (!h) {
        my_heap = HEAP_GONE;
        return NULL;
    }
    my_heap = h; /* first: pthread_setspecific may allocate */
    if (pthread_setspecific(key, h) != 0)
        registry_thread_exit(h);
    return heap_is_real(my_heap) ? my_heap : NULL;
}

static void heap_drop_all(heap *h)
{
    heap_flush(h);
    heap_empty_bins(h);
    pools_empty_bins(h);
    os_lock_take(&h->lock);
    heap_shed(h);
    heap_unlock(h);
}

void registry_thread_exit(void *p)
{
    heap *h = p;
    if (h != my_heap || !heap_enter(h)) /* a handler that ends the thread from within a slow path: the heap stays as it is */
        return;
    heap_drop_all(h);
    heap_leave(h);
    my_heap = HEAP_GONE;
    os_lock_take(&pm_registry.lock);
    idle_push(h);
    os_lock_give(&pm_registry.lock);
}

void registry_thread_idle(void)
{
    heap *h = my_heap;
    if (!heap_is_real(h) || !heap_enter(h))
        return;
    heap_drop_all(h);
    heap_leave(h);
}

/* ---- other heaps' slabs ---- */

/* Takes in a part of a heap's inbox and sends its empty slabs to the depot. Not for one's own heap. Registry lock. */
static bool heap_strip(heap *h, size_t blocks)
{
    if (h->state == HEAP_UNUSED || h->state == HEAP_CLOSED || !os_lock_try(&h->lock))
        return false;
    heap_drain(h, blocks);
    heap_shed(h);
    heap_unlock(h);
    pm_registry.strips++;
    return true;
}

static heap *visit_next(void)
{
    registry *r = &pm_registry;
    r->cursor = r->cursor + 1 < r->count ? r->cursor + 1 : 0;
    return registry_heap(r->cursor);
}

/* Hands a slab over under both locks: from the moment that its home is `mine`, messages for it may be taken in by who
 * strips that heap, and then it must be on its list. Whoever holds another heap's lock holds the registry's too, so
 * this waits for nobody. */
static bool heap_hand_over(heap *from, heap *mine, unsigned klass)
{
    os_lock_take(&from->lock);
    os_lock_take(&mine->lock);
    slab *s = heap_yield(from, klass, mine);
    if (s)
        heap_accept(mine, s);
    os_lock_give(&mine->lock);
    heap_unlock(from);
    return s != NULL;
}

bool registry_adopt(heap *mine, unsigned klass)
{
    registry *r = &pm_registry;
    bool adopted = false;
    if (!LOAD(&r->idle_count) && LOAD(&r->forked) <= 1)
        return false;
    os_lock_take(&r->lock);
    if (r->forked > 1)
        forked_collect(VISITS);
    for (unsigned i = 0; i < VISITS && i < r->count && !adopted; i++) {
        heap *h = visit_next();
        if (h->state == HEAP_IDLE && heap_strip(h, VISIT_BLOCKS))
            adopted = heap_hand_over(h, mine, klass);
    }
    r->adoptions += adopted;
    os_lock_give(&r->lock);
    return adopted;
}

/* At the limit: empty slabs of threads that are busy or asleep. All of their messages are taken in, however many: the
 * one place where a call is not bounded, since nothing that was freed may be out of reach. */
static void strip_others(heap *mine)
{
    registry *r = &pm_registry;
    os_lock_take(&r->lock);
    for (unsigned i = 0; i < VISITS && i < r->count; i++) {
        heap *h = visit_next();
        if (h != mine)
            heap_strip(h, SIZE_MAX);
    }
    os_lock_give(&r->lock);
}

static void strip_mine(heap *mine)
{
    os_lock_take(&mine->lock);
    heap_drain(mine, VISIT_BLOCKS);
    heap_shed(mine);
    heap_unlock(mine);
}

slab *registry_pool_slab(heap *mine)
{
    slab *s = pool_slab();
    if (!s && mine) {
        strip_mine(mine);
        s = pool_slab();
    }
    if (!s) {
        strip_others(mine);
        s = pool_slab();
    }
    return s;
}

static void *record_try(void)
{
    os_lock_take(&pm_pools.lock);
    void *record = record_take();
    os_lock_give(&pm_pools.lock);
    return record;
}

void *registry_record(heap *mine)
{
    void *record = record_try();
    slab *s = record ? NULL : registry_pool_slab(mine); /* for the depot, from which the records' pool will take it */
    if (!s)
        return record;
    slab_disown(s);
    s->next = NULL;
    depot_put(s);
    return record_try();
}

slab *registry_obtain(heap *mine, unsigned klass)
{
    slab *s = depot_take(klass);
    if (!s) {
        strip_others(mine);
        s = depot_take(klass);
    }
    if (s)
        heap_open_slab(mine, s, klass);
    return s;
}

void registry_collect_forked(void)
{
    os_lock_take(&pm_registry.lock);
    while (pm_registry.forked > 1)
        forked_collect(VISITS);
    os_lock_give(&pm_registry.lock);
}

void registry_visit_one(heap *mine)
{
    registry *r = &pm_registry;
    if (!os_lock_try(&r->lock))
        return;
    heap *h = visit_next();
    if (h != mine)
        heap_strip(h, VISIT_BLOCKS);
    os_lock_give(&r->lock);
}

void registry_trim(void)
{
    registry *r = &pm_registry;
    registry_collect_forked();
    os_lock_take(&r->lock);
    for (uint32_t i = 0; i < r->count; i++)
        heap_strip(registry_heap(i), SIZE_MAX);
    os_lock_give(&r->lock);
}

static size_t purge_between_blocks(slab *s)
{
    heap *h = LOAD(&s->home);
    size_t bytes = 0;
    if (!h || !heap_is_real(h))
        return 0;
    os_lock_take(&pm_registry.lock);
    if (h->state != HEAP_CLOSED && os_lock_try(&h->lock)) {
        if (LOAD(&s->home) == h)
            bytes = heap_purge(s);
        heap_unlock(h);
    }
    os_lock_give(&pm_registry.lock);
    return bytes;
}

/* The locks are held for one slab at a time. */
PEEKS size_t registry_purge(void)
{
    size_t bytes = 0;
    for (size_t i = 0, n = LOAD(&pm_depot.fresh); i < n; i++)
        bytes += purge_between_blocks(&pm_region.slabs[i]);
    return bytes;
}

void registry_check(void)
{
    registry *r = &pm_registry;
    heap_ids_check();
    os_lock_take(&r->lock);
    for (uint32_t i = 0; i < r->count; i++) {
        heap *h = registry_heap(i);
        if (h->state == HEAP_UNUSED || h->state == HEAP_CLOSED || !os_lock_try(&h->lock))
            continue;
        heap_check(h, h == my_heap || h->state == HEAP_IDLE);
        os_lock_give(&h->lock);
    }
    os_lock_give(&r->lock);
}

/* ---- fork ---- */

static void fork_prepare(void)
{
    os_lock_take(&pm_registry.gate);
    os_lock_take(&pm_registry.lock);
    pools_fork_prepare();
    os_lock_take(&pm_depot.lock);
}

static void fork_parent(void)
{
    os_lock_give(&pm_depot.lock);
    pools_fork_parent();
    os_lock_give(&pm_registry.lock);
    os_lock_give(&pm_registry.gate);
}

static void fork_child(void)
{
    registry *r = &pm_registry;
    heap *h = my_heap;
    r->epoch++;
    r->forked = r->count;
    if (heap_is_real(h))
        h->epoch = r->epoch;
    os_lock_reset(&pm_depot.lock);
    pools_fork_child();
    os_lock_reset(&r->lock);
    os_lock_reset(&r->gate);
}

void registry_forks_register(void)
{
    static bool registered;
    if (!__atomic_exchange_n(&registered, true, __ATOMIC_RELAXED))
        pthread_atfork(fork_prepare, fork_parent, fork_child);
}
