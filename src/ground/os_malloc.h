/* os_malloc.h: malloc.h with all that glibc declares in it, whatever C library this is built for. */
#pragma once

#include <malloc.h>
#include <stdio.h>

/* The function of the next allocator that aligned blocks come from. musl's memalign calls aligned_alloc by name: ours. */
#ifdef __GLIBC__
#define OS_MEMALIGN "memalign"
#else
#define OS_MEMALIGN "aligned_alloc"
#define M_TRIM_THRESHOLD (-1)
#define M_MMAP_THRESHOLD (-3)
#define M_ARENA_MAX (-8)
struct mallinfo {
    int arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
void *pvalloc(size_t);
int malloc_trim(size_t);
int mallopt(int, int);
void malloc_stats(void);
struct mallinfo mallinfo(void);
int malloc_info(int, FILE *);
#endif
#if !defined __GLIBC__ || (__GLIBC__ == 2 && __GLIBC_MINOR__ < 33)
struct mallinfo2 {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
struct mallinfo2 mallinfo2(void);
#endif
