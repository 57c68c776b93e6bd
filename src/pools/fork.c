/* fork.c: see fork.h. */
#include "pools/fork.h"

#include "pools/depot.h"
#include "pools/guard.h"
#include "pools/keeper.h"
#include "pools/seams.h"

#include <pthread.h>

/* After a fork, heaps of the parent's other threads are looked at when somebody is short: one on whose thread's slow
 * path the fork fell is closed for good, any other becomes idle. */
void fork_collect_some(uint32_t most)
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
        if (guests_here())
            guests_here()->bins_recount(h);
        heap_flush(h);
        if (PM_HARDENED)
            keeper_empty(h, true);
        heap_empty_bins(h);
        if (guests_here())
            guests_here()->bins_empty(h);
        registry_idle_push(h);
    }
}

void fork_collect(void)
{
    os_lock_take(&pm_registry.lock);
    while (pm_registry.forked > 1)
        fork_collect_some(VISITS);
    os_lock_give(&pm_registry.lock);
}

static const guests *forking; /* those that prepare has called */

static void fork_prepare(void)
{
    os_lock_take(&pm_registry.gate);
    os_lock_take(&pm_registry.lock);
    forking = guests_here();
    if (forking)
        forking->fork_prepare();
    os_lock_take(&pm_depot.lock);
    guard_lock();
}

static void fork_parent(void)
{
    guard_unlock();
    os_lock_give(&pm_depot.lock);
    if (forking)
        forking->fork_parent();
    os_lock_give(&pm_registry.lock);
    os_lock_give(&pm_registry.gate);
}

static void fork_child(void)
{
    registry *r = &pm_registry;
    heap *h = heap_mine();
    r->epoch++;
    r->forked = r->count;
    if (heap_is_real(h))
        h->epoch = r->epoch;
    guard_lock_reset();
    os_lock_reset(&pm_depot.lock);
    if (forking)
        forking->fork_child();
    os_lock_reset(&r->lock);
    os_lock_reset(&r->gate);
}

void fork_register(void)
{
    static bool registered;
    if (!__atomic_exchange_n(&registered, true, __ATOMIC_RELAXED))
        pthread_atfork(fork_prepare, fork_parent, fork_child);
}
