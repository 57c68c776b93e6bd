/* malloc.h: what the malloc family lends to the C++ operators. */
#pragma once

#include "pools/alloc.h"
#include "pools/misuse.h"

#define ALIAS_OF(f) __attribute__((alias(#f), visibility("default"), used, nothrow, leaf))

void *malloc_forward(size_t size);
void *malloc_slow(size_t size);
void free_foreign(void *p); /* what no pool handed out */
void *realloc_next(void *p, size_t size);
bool memory_shed(void); /* whether it may help to ask once more */
void forwarded(void);
void *out_of_memory(void);
void *boot_or_fail(size_t size);
bool overflow_forwards(size_t size);
extern uint32_t pm_seekers __attribute__((visibility("hidden"))); /* threads that look for a C++ runtime; atomic, relaxed */

/* malloc_hardened.c: in the hardened library what the short ways do in the other one. */
void *allocate_hardened(size_t size, made how, const void *caller); /* zeroed */
void *allocate_aligned(size_t size, size_t align, made how, const void *caller);
void release_hardened(void *p, giving g, size_t said, const void *caller);
void free_hardened(void *p, const void *caller); /* the same by CALL_FREE, of any size */
void *realloc_hardened(void *p, size_t size, const void *caller);
#define CALLER __builtin_return_address(0)

INLINE void *allocate(size_t size, maker by)
{
    if (PM_HARDENED)
        return allocate_hardened(size, by, CALLER);
    if (UNLIKELY(size > BLOCK_MAX))
        return malloc_forward(size);
    void *p = bin_pop(bin_of_size(my_heap, size));
    return LIKELY(p != NULL) ? p : malloc_slow(size);
}

/* `said`: bytes that the caller says it has, or SIZE_MAX: strict checks kill real programs, and are the hardened library's alone. */
INLINE void release_given(void *p, giving g, size_t said)
{
    if (PM_HARDENED && g == giving_by(CALL_FREE) && said == SIZE_MAX)
        free_hardened(p, CALLER);
    else if (PM_HARDENED)
        release_hardened(p, g, said, CALLER);
    else if (LIKELY(region_holds(p)))
        free_block(p);
    else
        free_foreign(p);
}
INLINE void release(void *p, call c, size_t said) { release_given(p, giving_by(c), said); }
