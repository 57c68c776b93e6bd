/* threads.c: see threads.h. */
#include "pools/threads.h"

#include "pools/depot.h"
#include "pools/fork.h"
#include "pools/keeper.h"
#include "pools/seams.h"

#include <pthread.h>

#define VISIT_BLOCKS 512

static pthread_key_t key;

static void thread_end(void *h) { thread_exit(h); }

bool threads_init(void) { return pthread_key_create(&key, thread_end) == 0; }
void threads_unload(void) { pthread_key_delete(key); }

/* ---- a thread's heap ---- */

static heap *heap_claim(void)
{
    registry *r = &pm_registry;
    os_lock_take(&r->lock);
    if (!r->idle && fork_left_heaps())
        fork_collect_some(VISITS);
    heap *h = registry_idle_pop();
    if (!h)
        h = registry_add();
    if (h) {
        h->state = HEAP_LIVE;
        h->epoch = r->epoch;
    }
    os_lock_give(&r->lock);
    return h;
}

static NOINLINE heap *heap_regain(void)
{
    my_heap = pm_lent;
    pm_unwatched = 0;
    watch_end();
    return my_heap;
}

static NOINLINE heap *heap_begin(void)
{
    heap *h = heap_claim();
    if (!h) {
        my_heap = HEAP_GONE;
        return NULL;
    }
    my_heap = h; /* first: pthread_setspecific may allocate */
    if (pthread_setspecific(key, h) != 0)
        thread_exit(h);
    return heap_is_real(my_heap) ? my_heap : NULL;
}

heap *thread_heap(void)
{
    heap *h = my_heap;
    if (LIKELY(heap_is_real(h)))
        return h;
    if (h == HEAP_LENT)
        return LOAD(&pm_asked) ? pm_lent : heap_regain();
    return h == HEAP_GONE ? NULL : heap_begin();
}

static void heap_drop_all(heap *h)
{
    heap_flush(h);
    if (PM_HARDENED)
        keeper_empty(h, false);
    heap_empty_bins(h);
    if (guests_here())
        guests_here()->bins_empty(h);
    os_lock_take(&h->lock);
    heap_shed(h);
    heap_unlock(h);
}

static void storer_idle(heap *h)
{
    if (pm_storer)
        pm_storer->idle(h);
}

void thread_exit(void *p)
{
    heap *h = p;
    if (h != heap_mine() || !heap_enter(h)) /* a handler that ends the thread from within a slow path: the heap stays as it is */
        return;
    heap_drop_all(h);
    heap_leave(h);
    storer_idle(h);
    my_heap = HEAP_GONE;
    os_lock_take(&pm_registry.lock);
    registry_idle_push(h);
    os_lock_give(&pm_registry.lock);
}

void thread_idle(void)
{
    heap *h = heap_mine();
    if (!heap_is_real(h) || !heap_enter(h))
        return;
    heap_drop_all(h);
    heap_leave(h);
    storer_idle(h);
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
    PROBE(strip, h->number, blocks);
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

bool heaps_adopt(heap *mine, unsigned klass)
{
    registry *r = &pm_registry;
    bool adopted = false;
    if (!LOAD(&r->idle_count) && !fork_left_heaps())
        return false;
    os_lock_take(&r->lock);
    if (fork_left_heaps())
        fork_collect_some(VISITS);
    for (unsigned i = 0; i < VISITS && i < r->count && !adopted; i++) {
        heap *h = visit_next();
        if (h->state == HEAP_IDLE && heap_strip(h, VISIT_BLOCKS))
            adopted = heap_hand_over(h, mine, klass);
    }
    os_lock_give(&r->lock);
    if (adopted)
        PROBE(adopt, mine->number, klass);
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

slab *slab_for_guest(void)
{
    slab *s = depot_take(CLASS_NONE);
    if (s) {
        s->klass = CLASS_NONE;
        STORE(&s->home, HEAP_POOL);
    }
    return s;
}

slab *guest_slab(heap *mine)
{
    slab *s = slab_for_guest();
    if (!s && mine) {
        strip_mine(mine);
        s = slab_for_guest();
    }
    if (!s) {
        strip_others(mine);
        s = slab_for_guest();
    }
    return s;
}

slab *heaps_obtain(heap *mine, unsigned klass)
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

void heaps_visit_one(heap *mine)
{
    registry *r = &pm_registry;
    if (!os_lock_try(&r->lock))
        return;
    heap *h = visit_next();
    if (h != mine)
        heap_strip(h, VISIT_BLOCKS);
    os_lock_give(&r->lock);
}

void heaps_trim(void)
{
    registry *r = &pm_registry;
    fork_collect();
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
PEEKS size_t heaps_purge(void)
{
    size_t bytes = 0;
    for (size_t i = 0, n = LOAD(&pm_depot.fresh); i < n; i++)
        bytes += purge_between_blocks(&pm_region.slabs[i]);
    return bytes;
}

void heaps_check(void)
{
    registry *r = &pm_registry;
    heap_ids_check();
    os_lock_take(&r->lock);
    for (uint32_t i = 0; i < r->count; i++) {
        heap *h = registry_heap(i);
        if (h->state == HEAP_UNUSED || h->state == HEAP_CLOSED || !os_lock_try(&h->lock))
            continue;
        heap_check(h, h == heap_mine() || h->state == HEAP_IDLE);
        os_lock_give(&h->lock);
    }
    os_lock_give(&r->lock);
}
