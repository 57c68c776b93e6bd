/* fork.c: see fork.h. tests/model/fork.pml is this file's rule, checked for all interleavings. */
#include "pools/fork.h"

#include "pools/depot.h"
#include "pools/keeper.h"
#include "pools/seams.h"
#include "pools/slab.h"

#include <pthread.h>

#define PATIENCE_MS 10000
#define PATIENCE_INSIDE_MS 100 /* of a handler that has interrupted a slow path: whom it waits for may wait for a lock of that one */

uint32_t pm_forking; /* threads between prepare and parent. In a child that was forked in the midst of another thread's slow path never 0:
                        it forwards everything */
static bool lost;          /* this is such a child */
static bool recount_due;   /* in a child: no heap that was left behind has been looked at. Registry lock */
static uint32_t holders;   /* threads between fork_hold and fork_release */
static uint32_t intruders; /* calls on explicit pools that have waited for the end of a fork in vain */
__thread uint32_t pm_tells; /* here, where it shares its eight bytes of TLS */
static __thread struct {
    uint16_t forks; /* of this thread's under way, one within the other: what it adds to pm_forking */
    uint16_t holds; /* 0 or 1: a handler that comes in between does not */
    uint16_t guests; /* calls of heap_enter_mine under way, one within the other, for which there was no heap to enter */
    bool held;       /* they hold */
    bool whole;      /* no other thread was on a slow path */
} mine;

/* ---- slow paths of other threads ---- */

static bool forks_alone(void) { return mine.forks > 0 && LOAD(&pm_forking) == mine.forks && !lost; }

bool heap_enter_forking(heap *h)
{
    if (forks_alone())
        return true;
    heap_leave(h);
    return false;
}

/* A handler that came in between two steps may have forked: in its child only this thread counts. */
static void holders_mend(uint32_t epoch)
{
    if (UNLIKELY(pm_registry.epoch != epoch))
        STORE(&holders, mine.holds);
}

void fork_release(void)
{
    uint32_t epoch = pm_registry.epoch;
    __atomic_fetch_sub(&holders, 1, __ATOMIC_RELEASE);
    mine.holds--;
    holders_mend(epoch);
}

bool fork_hold(void)
{
    uint32_t epoch = pm_registry.epoch;
    if (UNLIKELY(mine.holds > 0))
        return false;
    mine.holds++;
    __atomic_fetch_add(&holders, 1, __ATOMIC_SEQ_CST); /* as heap_enter's exchange */
    holders_mend(epoch);
    if (LIKELY(__atomic_load_n(&pm_forking, __ATOMIC_SEQ_CST) == 0) || forks_alone())
        return true;
    fork_release();
    return false;
}

static bool mine_inside(void) { return mine.holds > 0 || (heap_is_real(my_heap) && my_heap->inside); }

static bool wait_over(uint64_t since, unsigned turn)
{
    os_pause(turn);
    return lost || os_now_ms() - since > (mine_inside() ? PATIENCE_INSIDE_MS : PATIENCE_MS);
}

/* Without a heap to enter, by holding. */
static bool try_enter(heap *h) { return h ? heap_enter(h) : fork_hold(); }

/* What an explicit pool is asked for cannot be forwarded: it waits for a fork's end, and in vain no longer than PATIENCE_MS. */
static bool enter_patiently(heap *h)
{
    uint64_t since = 0;
    for (unsigned turn = 0; !try_enter(h); turn++) {
        since = since ? since : os_now_ms();
        if (wait_over(since, turn)) {
            __atomic_fetch_add(&intruders, 1, __ATOMIC_RELAXED);
            return false;
        }
    }
    return true;
}

heap *heap_enter_mine(void)
{
    heap *h = my_heap;
    bool real = heap_is_real(h);
    if (real && !h->inside && enter_patiently(h))
        return h;
    if (mine.guests++ == 0)
        mine.held = !real && mine.holds == 0 && enter_patiently(NULL);
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
    if (guests_here())
        guests_here()->bins_empty(h);
    heap_hear(h, SIZE_MAX);
    STORE(&h->state, HEAP_IDLE);
    registry_idle_push(h);
}

/* Of heaps whose threads a fork left behind: slabs that are on no list, since those had all of their blocks, or were just
 * giving one back. */
static void slabs_recount(void)
{
    for (size_t i = 0; i < pm_depot.fresh; i++) {
        slab *s = &pm_region.slabs[i];
        heap *h = slab_in_use(s) ? LOAD(&s->home) : HEAP_NOBODY;
        if (!heap_is_real(h) || LOAD(&h->epoch) == pm_registry.epoch || s->listed)
            continue;
        slab_recount(s, &pm_classes[s->klass]);
        if (s->chain || remote_count(LOAD(&s->remote)))
            heap_tell(s);
    }
}

/* All slabs that heaps are told of have the mark, or none has it. */
static void told_mark(bool told)
{
    for (uint32_t i = 0; i < pm_registry.count; i++) {
        heap *h = registry_heap(i);
        for (slab *lists[] = {h->inbox, h->told}, **l = lists; l < lists + 2; l++)
            for (slab *s = *l; s; s = s->told)
                STORE(&s->remote, told ? s->remote | REMOTE_TOLD : s->remote & ~REMOTE_TOLD);
    }
}

/* In the child, before it has a second thread, and without signals: a slab that a thread was just telling its home of has the mark, and
 * is on no list. O(slabs). */
static void slabs_retell(void)
{
    told_mark(false);
    for (size_t i = 0; i < pm_depot.fresh; i++)
        if (pm_region.slabs[i].remote & REMOTE_TOLD)
            slab_tell(&pm_region.slabs[i]);
    told_mark(true);
}

void fork_collect_some(uint32_t most)
{
    registry *r = &pm_registry;
    if (recount_due && fork_left_heaps())
        slabs_recount();
    recount_due = false;
    for (; r->forked > 1 && most > 0; most--) {
        heap *h = registry_heap(--r->forked);
        if (__atomic_load_n(&h->state, __ATOMIC_ACQUIRE) == HEAP_LIVE && LOAD(&h->epoch) != r->epoch) {
            h->lock = HEAP_OTHERS; /* its thread may have had it, just about to see that it may not enter */
            h->inside = false;
            heap_retire(h);
            heap_unlock(h);
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

/* Or its thread was left behind by a fork. */
static bool heap_rests(const heap *h)
{
    return !__atomic_load_n(&h->inside, __ATOMIC_ACQUIRE) || LOAD(&h->epoch) != pm_registry.epoch; /* heap_leave releases */
}

/* A thread that was cancelled in the midst of a slow path, or has jumped out of it, is waited for once. */
static bool wait_in_vain(heap *h, uint64_t since, unsigned turn)
{
    uint64_t slow = LOAD(&h->slow) + 1;
    if (LOAD(&h->stuck) == slow)
        return true;
    if (!wait_over(since, turn))
        return false;
    if (!mine_inside())
        STORE(&h->stuck, slow);
    return true;
}

/* Until no other thread is on a slow path. */
static bool others_rest(void)
{
    uint64_t since = 0;
    bool rest = true;
    for (uint32_t i = 0; i < LOAD(&pm_registry.count); i++) {
        heap *h = registry_heap(i);
        bool vain = false;
        for (unsigned turn = 0; h != my_heap && !vain && !heap_rests(h); turn++) {
            since = since ? since : os_now_ms();
            vain = wait_in_vain(h, since, turn);
        }
        rest &= !vain;
    }
    for (unsigned turn = 0; __atomic_load_n(&holders, __ATOMIC_ACQUIRE) > mine.holds; turn++) {
        since = since ? since : os_now_ms();
        if (wait_over(since, turn))
            return false;
    }
    return rest;
}

/* No signal comes in between: its handler may fork, too. */
static void forks_count(int by)
{
    uint64_t signals = os_signals_hold();
    __atomic_fetch_add(&pm_forking, (uint32_t)by, __ATOMIC_SEQ_CST);
    mine.forks = (uint16_t)(mine.forks + by);
    os_signals_release(signals);
}

/* A fork within a fork waits as well: the outer one may not have done so yet. */
static void fork_prepare(void)
{
    uint32_t before = LOAD(&intruders);
    forks_count(1);
    mine.whole = others_rest() && before == LOAD(&intruders);
}

static void fork_parent(void) { forks_count(-1); }

/* A tell or a slow path of this thread's own, which a handler has interrupted, goes on with what it holds of the lists: they stay as
 * they are then, and what another thread was just telling of is not heard of. */
static void child_retells(void)
{
    uint64_t signals = os_signals_hold();
    if ((pm_tellers != pm_tells || lost) && pm_tells == 0 && !mine_inside())
        slabs_retell();
    pm_tellers = pm_tells;
    os_signals_release(signals);
}

static void fork_child(void)
{
    registry *r = &pm_registry;
    heap *h = my_heap;
    lost |= !mine.whole;
    child_retells();
    mine.forks--;
    pm_forking = mine.forks + (lost ? 1U : 0U);
    holders = mine.holds;
    r->epoch++;
    r->process = os_pid();
    os_forked();
    if (pm_storer)
        pm_storer->forked();
    r->forked = r->count;
    recount_due = true;
    if (heap_is_real(h)) {
        h->epoch = r->epoch;
        STORE(&h->thread, os_thread());
    }
}

void fork_register(void)
{
    static bool registered;
    if (!__atomic_exchange_n(&registered, true, __ATOMIC_RELAXED))
        pthread_atfork(fork_prepare, fork_parent, fork_child);
}
