/* registry.c: see registry.h. */
#include "pools/registry.h"

#include "ground/config.h"
#include "pools/depot.h"

registry pm_registry;

/* Few programs need it: a page of each process stays untouched. Under the gate. */
heap *registry_orphan(void)
{
    heap *h = registry_heap(0);
    if (UNLIKELY(h->state == HEAP_UNUSED)) {
        os_lock_take(&pm_registry.lock);
        heap_init(h, 0);
        STORE(&h->state, HEAP_LIVE);
        os_lock_give(&pm_registry.lock);
    }
    return h;
}

/* What a heap takes of the limit: what it touches. */
static size_t heap_cost(void) { return pm_config.prefault ? pm_registry.stride : HEAP_TOUCHED; }

/* Room for one heap more, zeroed. */
static heap *heap_map(void)
{
    registry *r = &pm_registry;
    if (!depot_allows_heap(heap_cost()) && !(depot_purge(true) && depot_allows_heap(heap_cost())))
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

size_t registry_front(void) { return HEAPS_FIRST * (pm_registry.stride = round_up(sizeof(heap), os_page_size())); }

bool registry_init(void)
{
    pm_registry.first = pm_region.front;
    pm_registry.heaps = pm_region.heaps.base;
    pm_registry.process = region_control()->pid;
    return heap_map() == registry_heap(0);
}

heap *registry_add(void)
{
    heap *h = heap_map();
    if (h)
        heap_init(h, pm_registry.count - 1);
    return h;
}

static uint64_t idle_head(uint64_t before, uint32_t number) { return ((before >> 32) + 1) << 32 | number; }

void registry_idle_push(heap *h)
{
    uint64_t old = LOAD(&pm_registry.idle);
    do {
        STORE(&h->next_idle, (uint32_t)old);
    } while (!__atomic_compare_exchange_n(&pm_registry.idle, &old, idle_head(old, h->number), true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    __atomic_fetch_add(&pm_registry.idle_count, 1, __ATOMIC_RELAXED);
    depot_tell_news();
}

/* Another thread may pop the same one meanwhile, and push it again: its link is read in any case, as heaps are never unmapped, and the
 * count above the number tells. */
heap *registry_idle_pop(void)
{
    uint64_t old = __atomic_load_n(&pm_registry.idle, __ATOMIC_ACQUIRE);
    heap *h;
    do {
        if ((uint32_t)old == 0)
            return NULL;
        h = registry_heap((uint32_t)old);
    } while (!__atomic_compare_exchange_n(&pm_registry.idle, &old, idle_head(old, (uint32_t)LOAD(&h->next_idle)), true, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE));
    __atomic_fetch_sub(&pm_registry.idle_count, 1, __ATOMIC_RELAXED);
    return h;
}

heap *registry_visit(void)
{
    registry *r = &pm_registry;
    r->cursor = r->cursor + 1 < r->count ? r->cursor + 1 : 0;
    return registry_heap(r->cursor);
}
