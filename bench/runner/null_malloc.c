/* The null allocator, for the benchmark alone: the next address of a fixed ring, no bookkeeping, no
 * header, nothing freed. No allocator can do less, so its time is the floor. Blocks overlap: only
 * programs that never read back what they stored can run on it.
 * calloc'd memory is never handed out twice, because the C library keeps threads' tables there. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>

enum { RING = 4096, SIZE_MOST = 256 << 10, RINGS = 128, ONCE = 16 << 20 };

/* Starts lie in the first RING bytes of a thread's slice; the rest gives room to the largest block. */
static char slices[RINGS][RING + SIZE_MOST] __attribute__((aligned(4096)));
static char once[ONCE] __attribute__((aligned(64)));
static atomic_size_t slices_taken, once_used;
static _Thread_local char *slice __attribute__((tls_model("initial-exec")));
static _Thread_local size_t at __attribute__((tls_model("initial-exec")));

static void *ring_next(size_t size, size_t alignment)
{
    if (__builtin_expect(!slice, 0))
        slice = slices[atomic_fetch_add(&slices_taken, 1) % RINGS];
    if (__builtin_expect(size > SIZE_MOST - 4096, 0)) {
        errno = ENOMEM;
        return NULL;
    }
    size_t start = (at + alignment - 1) & (size_t)-(ptrdiff_t)alignment & (RING - 1);
    at = start + ((size + 15) & ~(size_t)15);
    return slice + start;
}

void *malloc(size_t size) { return ring_next(size, 16); }
void free(void *p) { (void)p; }
void *memalign(size_t alignment, size_t size) { return ring_next(size, alignment); }
void *aligned_alloc(size_t alignment, size_t size) { return ring_next(size, alignment); }

void *calloc(size_t count, size_t size)
{
    size_t start = atomic_fetch_add(&once_used, (count * size + 63) & ~(size_t)63);
    return start + count * size <= ONCE ? once + start : NULL;
}

/* What was stored is lost: no program that needs it may run here. */
void *realloc(void *p, size_t size)
{
    (void)p;
    return ring_next(size, 16);
}

int posix_memalign(void **p, size_t alignment, size_t size)
{
    *p = ring_next(size, alignment);
    return *p ? 0 : ENOMEM;
}
