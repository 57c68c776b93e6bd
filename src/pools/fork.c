/* fork.c: see fork.h. tests/model/fork.pml is this file's rule, checked for all interleavings. */
#include "pools/fork.h"

#include "pools/depot.h"
#include "pools/keeper.h"
#include "pools/seams.h"
#include "pools/slab.h"

#include <pthread.h>

#define PATIENCE_MS 10000

uint32_t pm_forking; /* threads between prepare and parent. In a child that was forked in the midst of another thread's slow path never 0:
                        it forwards everything */
static bool lost;          /* this is such a child */
static uint32_t holders;   /* threads between fork_hold and fork_release */
static uint32_t intruders; /* calls on explicit pools that have waited for the end of a fork in vain */
static __thread struct {
    uint16_t forks; /* of this thread's under way, one within the other */
    uint16_t holds;
    uint16_t guests; /* calls of heap_enter_mine under way, one within the other, for which there was no heap to enter */
    bool held;       /* they hold */
    bool whole;      /* no other thread was on a slow path */
} mine;

/* ---- slow paths of other threads ---- */

static bool forks_alone(void) { return mine.forks > 0 && LOAD(&pm_forking) == 1; }

bool heap_enter_forking(heap *h)
{
    if (forks_alone())
        return true;
    heap_leave(h);
    return false;
}

void fork_release(void)
{
    __atomic_fetch_sub(&holders, 1, __ATOMIC_RELEASE);
    mine.holds--;
}

bool fork_hold(void)
{
    mine.holds++;
    __atomic_fetch_add(&holders, 1, __ATOMIC_SEQ_CST); /* as heap_enter's exchange */
    if (LIKELY(__atomic_load_n(&pm_forking, __ATOMIC_SEQ_CST) == 0) || forks_alone())
        return true;
    fork_release();
    return false;
}

static bool wait_over(uint64_t since, unsigned turn)
{
    os_pause(turn);
    return os_now_ms() - since > PATIENCE_MS;
}

/* Without a heap to enter, by holding. */
static bool try_enter(heap *h) { return h ? heap_enter(h) : fork_hold(); }

/* What an explicit pool is asked for cannot be forwarded: it waits for a fork's end, and in vain no longer than PATIENCE_MS. */
static bool enter_patiently(heap *h)
{
    uint64_t since = 0;
    for (unsigned turn = 0; !try_enter(h); turn++) {
        since = since ? since : os_now_ms();
        if (lost || wait_over(since, turn)) {
            __atomic_fetch_add(&intruders, 1, __ATOMIC_RELAXED);
            return false;
        }
    }
    return true;
}

heap *heap_enter_mine(void)
{
    heap *h = heap_mine();
    bool real = heap_is_real(h);
    if (real && !h->inside && enter_patiently(h))
        return h;
    if (mine.guests++ == 0)
        mine.held = !real && enter_patiently(NULL);
    return NULL;
}

void heap_leave_mine(heap *h)
{
    if (h)
        heap_leave(h);
    else if (--mine.guests == 0 && mine.held)
        fork_release();
}

/* ---- what a fork leaves ---- */

void heap_retire(heap *h)
{
    heap_recount(h);
    heap_flush(h);
    if (PM_HARDENED)
        keeper_empty(h);
    heap_empty_bins(h);
    if (guests_here()) {
        guests_here()->bins_recount(h);
        guests_here()->bins_empty(h);
    }
    heap_hear(h, SIZE_MAX);
    registry_idle_push(h);
}

/* In the child: a slab that a thread was just telling its home of, or pushing a first block to, is on no list. */
static void slabs_retell(void)
{
    for (size_t i = 0; i < pm_depot.fresh; i++) {
        slab *s = &pm_region.slabs[i];
        heap *h = slab_in_use(s) ? LOAD(&s->home) : HEAP_NOBODY;
        if (!heap_is_real(h) || h->epoch == pm_registry.epoch)
            continue;
        if (!s->listed)
            slab_recount(s, &pm_classes[s->klass]);
        __atomic_fetch_and(&s->remote, ~REMOTE_TOLD, __ATOMIC_RELAXED);
        if (s->chain || remote_count(s->remote))
            heap_tell(s);
    }
}

/* Begins with the last one, when the inboxes are made anew. */
void fork_collect_some(uint32_t most)
{
    registry *r = &pm_registry;
    if (r->forked == r->count && fork_left_heaps()) {
        for (uint32_t i = 0; i < r->count; i++)
            if (registry_heap(i)->epoch != r->epoch)
                registry_heap(i)->inbox = registry_heap(i)->told = NULL;
        slabs_retell();
    }
    for (; r->forked > 1 && most > 0; most--) {
        heap *h = registry_heap(--r->forked);
        if (h->state == HEAP_LIVE && h->epoch != r->epoch && heap_lock_try(h)) {
            heap_retire(h);
            slab *leaving = heap_unlock(h);
            if (leaving)
                depot_put(leaving);
        }
    }
}

void fork_collect(void)
{
    os_lock_take(&pm_registry.lock);
    while (fork_left_heaps())
        fork_collect_some(VISITS);
    os_lock_give(&pm_registry.lock);
}

/* ---- the handlers ---- */

static bool heap_rests(const heap *h) { return !__atomic_load_n(&h->inside, __ATOMIC_ACQUIRE); } /* heap_leave releases */

/* Until no other thread is on a slow path. */
static bool others_rest(void)
{
    uint64_t since = 0;
    for (uint32_t i = 0; i < LOAD(&pm_registry.count); i++) {
        heap *h = registry_heap(i);
        for (unsigned turn = 0; h != heap_mine() && !heap_rests(h); turn++) {
            since = since ? since : os_now_ms();
            if (wait_over(since, turn))
                return false;
        }
    }
    for (unsigned turn = 0; __atomic_load_n(&holders, __ATOMIC_ACQUIRE) > mine.holds; turn++) {
        since = since ? since : os_now_ms();
        if (wait_over(since, turn))
            return false;
    }
    return true;
}

static void fork_prepare(void)
{
    if (mine.forks++ > 0)
        return;
    uint32_t before = LOAD(&intruders);
    __atomic_fetch_add(&pm_forking, 1, __ATOMIC_SEQ_CST);
    mine.whole = others_rest() && before == LOAD(&intruders);
}

static void fork_parent(void)
{
    if (--mine.forks == 0)
        __atomic_fetch_sub(&pm_forking, 1, __ATOMIC_RELEASE);
}

static void fork_child(void)
{
    registry *r = &pm_registry;
    heap *h = heap_mine();
    lost |= !mine.whole;
    pm_forking = --mine.forks > 0 || lost;
    holders = mine.holds;
    r->epoch++;
    r->forked = r->count;
    os_lock_reset(&r->gate);
    if (heap_is_real(h)) {
        h->epoch = r->epoch;
        h->thread = os_thread();
    }
}

void fork_register(void)
{
    static bool registered;
    if (!__atomic_exchange_n(&registered, true, __ATOMIC_RELAXED))
        pthread_atfork(fork_prepare, fork_parent, fork_child);
}
