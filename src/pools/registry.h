/* registry.h: All heaps: who has one, who may take one over, what a fork leaves of them. */
#ifndef PM_REGISTRY_H
#define PM_REGISTRY_H

#include "pools/heap.h"

/* Guarded by lock; count may be read any time. Heaps are never unmapped. Heap 0 is the orphan: it serves the
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
    heap *idle;
    uint32_t idle_count;
    uint64_t adoptions, strips, reentries;
} registry;

#define HEAPS_FIRST 2

extern registry pm_registry;

INLINE heap *registry_heap_of(const registry *r, size_t number)
{
    return (heap *)(number < HEAPS_FIRST ? r->first + (HEAPS_FIRST - 1 - number) * r->stride
                                         : r->heaps + (number - HEAPS_FIRST) * r->stride);
}
INLINE heap *registry_heap(uint32_t number) { return registry_heap_of(&pm_registry, number); }

size_t registry_front(void); /* bytes that the first heaps take beside the control page's head */
bool registry_init(void); /* the region is up */
heap *registry_orphan(void);
/* The calling thread's heap, made or taken over if need be; NULL when it has none and gets none any more. */
heap *registry_my_heap(void);
/* A slab with free blocks of klass changes from an idle heap to the calling thread's; false: none was found. */
bool registry_adopt(heap *mine, unsigned klass);
/* An empty slab, opened for mine but not accepted yet: from the depot, at the limit from other heaps; or NULL. */
slab *registry_obtain(heap *mine, unsigned klass);
/* A slab for an explicit pool or an arena, at the limit from heaps, one's own first; mine may be NULL. */
slab *registry_pool_slab(heap *mine);
void *registry_record(heap *mine); /* a record for one of them, zeroed, or NULL */
/* What threads that a fork left behind had at hand goes to its slabs. O(heaps). */
void registry_collect_forked(void);
/* Now and then, on a slow path: one other heap's inbox is taken in and its empty slabs go to the depot, so that an
 * owner that sleeps does not hold memory for ever. */
void registry_visit_one(heap *mine);
/* The same for every heap that is not locked, and all of its messages. O(heaps + messages). */
void registry_trim(void);
/* Pages without a block in use, of slabs of heaps that are not locked, go back. Bytes of those. O(slabs + blocks in use). */
size_t registry_purge(void);
/* Ends the calling thread's heap: its blocks go home, its slabs wait for another thread. */
void registry_thread_exit(void *heap);
void registry_thread_idle(void); /* gives back what the calling thread's bins and outboxes hold */
void registry_unload(void); /* threads that end from now on leave their heaps as they are */
void registry_check(void);

/* Before any other thread may come: the handlers of a program that registers its own later then run inside of these. Once;
 * the locks they take are good before the pools are up. */
void registry_forks_register(void);

#endif
