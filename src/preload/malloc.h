/* malloc.h: what the malloc family lends to the C++ operators. */
#ifndef PM_MALLOC_H
#define PM_MALLOC_H

#include "pools/alloc.h"

#define ALIAS_OF(f) __attribute__((alias(#f), visibility("default"), used, nothrow, leaf))

void *malloc_forward(size_t size);
void *malloc_slow(size_t size);
void free_foreign(void *p); /* what no pool handed out */

INLINE void *allocate(size_t size)
{
    if (UNLIKELY(size > BLOCK_MAX))
        return malloc_forward(size);
    void *p = bin_pop(bin_of_size(my_heap, size));
    return LIKELY(p != NULL) ? p : malloc_slow(size);
}

INLINE void release(void *p)
{
    if (LIKELY(region_holds(p)))
        free_block(p);
    else
        free_foreign(p);
}

#endif
