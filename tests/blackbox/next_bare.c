/* A next allocator that lacks much: no calloc, no malloc_usable_size, and of the aligned functions posix_memalign alone,
 * (C11_ALIGNED) aligned_alloc alone or (NONE_ALIGNED) none. Like the C library's, it gets ready in its first call, which had better
 * not be two threads': next_ready_unasked says whether that was mallopt, before anybody wanted memory. */
#include <errno.h>
#include <stddef.h>

void *__libc_malloc(size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static int asked;
int next_ready_unasked;

int mallopt(int parameter, int value)
{
    (void)value;
    next_ready_unasked |= parameter == 0 && !asked;
    return 1;
}

void *malloc(size_t size)
{
    asked = 1;
    return __libc_malloc(size);
}
void *realloc(void *p, size_t size) { return __libc_realloc(p, size); }
void free(void *p) { __libc_free(p); }

#ifdef C11_ALIGNED
void *aligned_alloc(size_t alignment, size_t size) { return __libc_memalign(alignment, size); }
#elif !defined NONE_ALIGNED
int posix_memalign(void **p, size_t alignment, size_t size)
{
    void *got = __libc_memalign(alignment, size);
    if (!got)
        return ENOMEM;
    *p = got;
    return 0;
}
#endif
