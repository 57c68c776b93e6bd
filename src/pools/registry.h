/* registry.h: the table of all heaps, and those without a thread. */
#pragma once

#include "pools/heap.h"

/* Guarded by lock, but for the idle ones; count may be read any time. Heaps are never unmapped. Heap 0 is the orphan: it serves the
 * threads that have ended their own, one at a time, under gate.
 * Lock order: gate, registry.lock, the pools', a pool's, heap.lock (another heap's: try only, when one's own is held), depot.lock. */
typedef struct registry {
    os_lock lock, gate;
    char *first;     /* heap 1, the first thread's, is there, heap 0 behind it: on the control page, which is touched anyway */
    char *heaps;     /* the others */
    size_t stride;   /* bytes from one heap to the next */
    uint32_t count;
    uint32_t epoch;  /* forks since the start, in the line that leads to this process */
    uint32_t forked; /* after a fork: heaps below this number may belong to threads that are gone */
    uint32_t cursor; /* where the next look for left heaps, or at others' empty slabs, begins */
    uint32_t process; /* whose threads they are. Another one's where a process came about by other means than fork(): by vfork(), or the
                         kernel's clone; there nothing is known of them */
    uint64_t idle;   /* the newest heap without a thread, by its number, or 0; above it, counted up with each change: see registry_idle_pop.
                        Atomic: pushed with release, popped with acquire; a popped heap is its thread's when that has had its lock */
    uint32_t idle_count; /* atomic */
} registry;

#define HEAPS_FIRST 2
#define VISITS 8 /* heaps looked at in one go */

extern registry pm_registry __attribute__((visibility("hidden")));

INLINE heap *registry_heap_of(const registry *r, size_t number)
{
    return (heap *)(number < HEAPS_FIRST ? r->first + (HEAPS_FIRST - 1 - number) * r->stride
                                         : r->heaps + (number - HEAPS_FIRST) * r->stride);
}
INLINE heap *registry_heap(uint32_t number) { return registry_heap_of(&pm_registry, number); }

size_t registry_front(void); /* bytes that the first heaps take beside the control page's head */
bool registry_init(void); /* the region is up */
heap *registry_orphan(void); /* gate held */

/* Between fork_hold and fork_release, or inside; no lock. */
INLINE bool registry_has_idle(void) { return (uint32_t)LOAD(&pm_registry.idle) != 0; }
void registry_idle_push(heap *h); /* its thread is gone, its bins are empty, its state says so */
heap *registry_idle_pop(void);    /* or NULL. Who looked at it as an idle one may still hold its lock */

/* With the registry lock. */
heap *registry_add(void);   /* one heap more, begun, or NULL */
heap *registry_visit(void); /* one after the other */
