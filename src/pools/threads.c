/* threads.c: see threads.h. */
#include "pools/threads.h"

#include "pools/depot.h"
#include "pools/fork.h"
#include "pools/keeper.h"
#include "pools/rest.h"
#include "pools/seams.h"
#include "pools/slab.h"

#include <pthread.h>

#define THREAD_UNKNOWN 0 /* counts as alive: the kernel refuses the number, and does not say that there is no such thread */
#define VISIT_SLABS 64 /* that a heap was told of */

static pthread_key_t key;

static void thread_end(void *h) { thread_exit(h); }

bool threads_init(void) { return pthread_key_create(&key, thread_end) == 0; }
void threads_unload(void) { pthread_key_delete(key); }

/* ---- a thread's heap ---- */

static bool heap_is_dead(const heap *h)
{
    return __atomic_load_n(&h->state, __ATOMIC_ACQUIRE) == HEAP_LIVE && LOAD(&h->epoch) == pm_registry.epoch &&
           !os_thread_lives(pm_registry.process, LOAD(&h->thread)) && !__atomic_load_n(&h->inside, __ATOMIC_ACQUIRE); /* heap_leave releases */
}

/* Its thread has ended without giving it back: its first call came in the last round of the C library's destructors, or it was
 * made by other means than pthread_create. */
static void dead_collect(void)
{
    registry *r = &pm_registry;
    if (r->count <= 1 || r->process != os_pid())
        return;
    for (unsigned i = 0; i < VISITS && i < r->count && !registry_has_idle(); i++) {
        heap *h = registry_visit();
        if (h == registry_heap(0) || !heap_is_dead(h) || !heap_lock_try(h))
            continue;
        if (heap_is_dead(h)) { /* not put to rest by its thread meanwhile, nor another one's by now */
            heap_retire(h);
            PROBE(dead_found, h->number, 0);
        }
        heap_unlock(h);
    }
}

static heap *heap_find(void)
{
    os_lock_take(&pm_registry.lock);
    if (fork_left_heaps())
        fork_collect_some(VISITS);
    if (!registry_has_idle())
        dead_collect();
    heap *h = registry_idle_pop();
    h = h ? h : registry_add();
    os_lock_give(&pm_registry.lock);
    return h;
}

/* Whoever found it idle has its lock as long as that matters. */
static heap *heap_claim(void)
{
    registry *r = &pm_registry;
    heap *h = registry_idle_pop();
    h = h ? h : heap_find();
    if (!h)
        return NULL;
    heap_lock_wait(h);
    STORE(&h->epoch, r->epoch);
    STORE(&h->thread, r->process == os_pid() ? os_thread() : THREAD_UNKNOWN);
    __atomic_store_n(&h->state, HEAP_LIVE, __ATOMIC_RELEASE);
    heap_unlock(h);
    return h;
}

NOINLINE heap *thread_begin(void)
{
    if (my_heap == HEAP_GONE || !fork_hold())
        return NULL;
    heap *h = heap_claim();
    my_heap = h ? h : HEAP_GONE; /* first: pthread_setspecific may allocate */
    if (h)
        STORE(&h->epoch, pm_registry.epoch); /* a handler that came in between may have forked */
    fork_release();
    if (h && pthread_setspecific(key, h) != 0)
        thread_exit(h);
    return heap_is_real(my_heap) ? my_heap : NULL;
}

void thread_drop(heap *h)
{
    heap_flush(h);
    if (PM_HARDENED)
        keeper_empty(h);
    heap_hear(h, SIZE_MAX);
    heap_empty_bins(h);
    if (guests_here())
        guests_here()->bins_empty(h);
    heap_gather(h);
    heap_shed(h);
}

/* A heap that cannot be put to rest stays as it is, and is found later. A signal handler that comes before this thread has let go of it
 * finds it locked, one that comes later forwards: nothing is at hand in a heap that others may take slabs from. */
void thread_exit(void *p)
{
    heap *h = p;
    if (h != my_heap)
        return;
    if (pm_storer)
        pm_storer->idle(h);
    if (!heap_enter(h))
        return;
    thread_drop(h);
    bool holds = fork_hold();
    my_heap = HEAP_GONE;
    if (holds)
        STORE(&h->state, HEAP_IDLE);
    heap_leave(h);
    if (!holds)
        return;
    registry_idle_push(h);
    fork_release();
}

void thread_idle(void)
{
    heap *h = my_heap;
    if (!heap_is_real(h) || !heap_enter(h))
        return;
    thread_drop(h);
    heap_leave(h);
    if (pm_storer)
        pm_storer->idle(h);
}

/* ---- other heaps' slabs ---- */

/* What a heap's inbox tells of is looked at, and its empty slabs go to the depot; with SIZE_MAX, those too that nobody has noticed.
 * Not for one's own heap. Registry lock. */
static bool heap_strip(heap *h, size_t most)
{
    if (LOAD(&h->state) == HEAP_UNUSED || !heap_lock_try(h))
        return false;
    heap_hear(h, most);
    if (most == SIZE_MAX)
        heap_sweep(h);
    heap_shed(h);
    PROBE(strip, h->number, most);
    heap_unlock(h);
    return true;
}

/* From a heap without a thread, if it still has none. Both locks are held. */
static bool heap_hand_over(heap *from, heap *mine, unsigned klass)
{
    if (!heap_lock_try(from))
        return false;
    slab *s = from->state == HEAP_IDLE ? heap_yield(from, klass, mine) : NULL;
    if (s)
        heap_accept(mine, s);
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
        heap *h = registry_visit();
        if (h != mine && LOAD(&h->state) == HEAP_IDLE && heap_strip(h, VISIT_SLABS))
            adopted = heap_hand_over(h, mine, klass);
    }
    os_lock_give(&r->lock);
    if (adopted)
        PROBE(adopt, mine->number, klass);
    return adopted;
}

/* At the limit: empty slabs of threads that are busy or asleep. All that they are told of is looked at, however much: the
 * one place where a call is not bounded, since nothing that was freed may be out of reach. */
static void strip_others(heap *mine)
{
    registry *r = &pm_registry;
    os_lock_take(&r->lock);
    for (unsigned i = 0; i < VISITS && i < r->count; i++) {
        heap *h = registry_visit();
        if (h != mine)
            heap_strip(h, SIZE_MAX);
    }
    os_lock_give(&r->lock);
}

/* At the limit too, by its own thread: what is at hand in spares. */
static void strip_mine(heap *mine)
{
    heap_hear(mine, VISIT_SLABS);
    heap_gather(mine);
    heap_shed(mine);
    slab *leaving = mine->leaving;
    mine->leaving = NULL;
    if (leaving)
        depot_put(leaving, NULL);
}

/* And then: pages of empty slabs, each of which had too few for what is asked for. */
static bool empty_purged(void) { return pm_config.limit && depot_purge(true) > 0; }

static slab *slab_for_guest(void)
{
    slab *s = depot_take(CLASS_NONE, NULL);
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
    if (!s && empty_purged())
        s = slab_for_guest();
    return s;
}

/* A heap that comes again and again gets more at once, but not at the limit, where each may be another one's need. */
static slab *slabs_take(heap *mine, unsigned klass)
{
    slab *s = depot_take(klass, &mine->handful), *more = s ? s->next : NULL;
    for (slab *next; more; more = next) {
        next = more->next;
        heap_keep(mine, more);
    }
    if (!pm_classes[klass].reserved)
        handful_grow(&mine->handful);
    mine->spare_idle = false;
    return s;
}

slab *heaps_obtain(heap *mine, unsigned klass)
{
    slab *s = slabs_take(mine, klass);
    if (!s) {
        strip_mine(mine);
        strip_others(mine);
        s = slabs_take(mine, klass);
    }
    if (!s && empty_purged())
        s = slabs_take(mine, klass);
    return s;
}

/* As many as milliseconds have passed, one at least. What they are told of is looked at, and pages at rest. */
void heaps_visit(heap *mine)
{
    static uint32_t last;
    registry *r = &pm_registry;
    bool alone = LOAD(&r->count) <= HEAPS_FIRST && LOAD(&registry_heap(0)->state) == HEAP_UNUSED;
    if (alone || !os_lock_try(&r->lock))
        return;
    uint32_t now = (uint32_t)os_now_ms(), ms = now - last;
    last = now;
    for (uint32_t i = 0; i < size_min(size_max(ms, 1), VISITS / 2) && i < r->count; i++) {
        heap *h = registry_visit();
        if (h == mine || !heap_strip(h, VISIT_SLABS) || ms == 0 || !heap_lock_try(h))
            continue;
        rest_visited(h, now);
        heap_unlock(h);
    }
    os_lock_give(&r->lock);
}

void heaps_trim(heap *mine)
{
    registry *r = &pm_registry;
    fork_collect();
    os_lock_take(&r->lock);
    for (uint32_t i = 0; i < r->count; i++)
        if (registry_heap(i) != mine)
            heap_strip(registry_heap(i), SIZE_MAX);
    os_lock_give(&r->lock);
}

static size_t purge_between_blocks(slab *s, heap *mine)
{
    heap *h = LOAD(&s->home);
    size_t bytes = 0;
    if (!h || !heap_is_real(h))
        return 0;
    if (h == mine)
        return slab_give_pages(s);
    os_lock_take(&pm_registry.lock);
    if (heap_lock_try(h)) {
        if (LOAD(&s->home) == h && s->listed)
            slab_gather(s, &pm_classes[s->klass], h->state == HEAP_IDLE);
        if (LOAD(&s->home) == h)
            bytes = slab_give_pages(s);
        heap_unlock(h);
    }
    os_lock_give(&pm_registry.lock);
    return bytes;
}

/* The locks are held for one slab at a time. */
PEEKS size_t heaps_purge(heap *mine)
{
    size_t bytes = 0;
    for (size_t i = 0, n = LOAD(&pm_depot.fresh); i < n; i++)
        bytes += purge_between_blocks(&pm_region.slabs[i], mine);
    return bytes;
}

void heaps_check(void)
{
    registry *r = &pm_registry;
    heap *mine = heap_enter_mine();
    heap_ids_check();
    os_lock_take(&r->lock);
    for (uint32_t i = 0; i < r->count; i++) {
        heap *h = registry_heap(i);
        if (h == mine)
            heap_check(h, true);
        else if (LOAD(&h->state) != HEAP_UNUSED && heap_lock_try(h)) {
            heap_check(h, h->state == HEAP_IDLE);
            heap_unlock(h);
        }
    }
    os_lock_give(&r->lock);
    heap_leave_mine(mine);
}
