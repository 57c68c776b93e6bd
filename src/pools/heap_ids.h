/* heap_ids.h: Four heaps that are no heaps: constant, all of their bins empty for ever. */
#pragma once

#include "ground/base.h"

#define HEAP_ID_BYTES ((size_t)32) /* one bin apart, so that one constant serves all four */
extern char pm_no_heaps[]; /* not const, so that it takes no memory; heap_ids_check looks whether it still is */

#define HEAP_NONE ((heap *)(pm_no_heaps))                       /* my_heap of a thread that has not allocated yet */
#define HEAP_GONE ((heap *)(pm_no_heaps + HEAP_ID_BYTES))       /* my_heap of a thread that has ended its heap */
#define HEAP_NOBODY ((heap *)(pm_no_heaps + 2 * HEAP_ID_BYTES)) /* home of a slab in the depot */

#define HEAP_POOL ((heap *)(pm_no_heaps + 3 * HEAP_ID_BYTES))   /* home of a slab of a pm_pool or pm_arena */

void heap_ids_check(void); /* aborts when they were written to */

INLINE bool heap_is_real(const heap *h)
{
    return (uintptr_t)h - (uintptr_t)pm_no_heaps > 3 * HEAP_ID_BYTES;
}
