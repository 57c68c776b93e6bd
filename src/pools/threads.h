/* threads.h: from a thread's first call to its end, and what heaps give each other. */
#pragma once

#include "pools/registry.h"
#include "pools/slab.h"

bool threads_init(void); /* the registry is up */
void threads_unload(void); /* threads that end from now on leave their heaps as they are */

/* The calling thread's heap, made or taken over if need be; NULL when it has none and gets none any more. */
heap *thread_begin(void);
INLINE heap *thread_heap(void)
{
    heap *h = my_heap;
    return LIKELY(heap_is_real(h)) ? h : thread_begin();
}
/* Ends the calling thread's heap: its blocks go home, its slabs wait for another thread. */
void thread_exit(void *heap);
/* All that the calling thread's heap, or one without a thread, has at hand goes home, and its empty slabs leave. With its lock. */
void thread_drop(heap *h);
void thread_idle(void); /* gives back what the calling thread's bins and runs hold */

/* A slab with free blocks of klass changes from an idle heap to the calling thread's; false: none was found. */
bool heaps_adopt(heap *mine, unsigned klass);
/* An empty slab, opened for mine but not accepted yet: from the depot, at the limit from other heaps; or NULL. */
slab *heaps_obtain(heap *mine, unsigned klass);
/* A slab in nobody's list, for a guest, at the limit from heaps, one's own first; mine may be NULL. */
slab *guest_slab(heap *mine);
INLINE void slab_disown(slab *s) /* a guest's slab may go to the depot */
{
    if (PM_HARDENED)
        slab_clear(s);
    s->state = SLAB_USED;
    STORE(&s->pool, NULL);
}
/* Now and then, on a slow path: another heap's inbox is taken in, its empty slabs go to the depot, and pages of those at rest go back, so
 * that an owner that sleeps does not hold memory for ever. */
void heaps_visit(heap *mine);
/* The same for every heap that is not locked, and all that its inbox tells of, or nobody has noticed. O(heaps + slabs). */
void heaps_trim(heap *mine);
/* Pages without a block in use, of slabs of heaps that are not locked, go back. Bytes of those. O(slabs + blocks in use). */
size_t heaps_purge(heap *mine);
void heaps_check(void);
