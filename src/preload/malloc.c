/* malloc.c: the malloc family. Everything small goes to the pools, everything else to the next allocator. malloc and free are
 * the two functions whose instructions are counted by a test. */
#include "preload/malloc.h"

#include "ground/config.h"
#include "ground/os.h"
#include "ground/os_malloc.h"
#include "ground/text.h"
#include "pools/bringup.h"
#include "pools/guard.h"
#include "pools/hardened.h"
#include "preload/large.h"
#include "preload/next.h"
#include "preload/start.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- forwarding ---- */

void forwarded(void)
{
    heap *h = my_heap;
    if (LIKELY(heap_is_real(h)))
        h->forwarded++;
    else
        __atomic_add_fetch(&pm_forwarded_elsewhere, 1, __ATOMIC_RELAXED);
}

void *out_of_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

void *boot_or_fail(size_t size)
{
    void *p = boot_alloc(size);
    return p ? p : out_of_memory();
}

/* Before a request fails: what is at hand, and the end of the region, if nothing is there. Not where a handler has interrupted the next
 * allocator. */
COLD bool memory_shed(void)
{
    if (large_is_away())
        return false;
    bool kept = large_shed();
    return (pm_pools_ready && pools_shrink()) || kept;
}

INLINE void *next_ask(size_t size, bool zeroed)
{
    large_away(1);
    void *p = zeroed ? pm_next.calloc(1, size) : pm_next.malloc(size);
    large_away(-1);
    return p;
}

/* Rounded up, so that it fits more than one request; where there is no memory for that, not, and once more without what is at hand. */
INLINE void *next_get(size_t size, bool zeroed)
{
    size_t most = large_round(size);
    int saved = errno;
    void *p = next_ask(most, zeroed);
    if (!p && most > size)
        p = next_ask(size, zeroed);
    if (UNLIKELY(!p) && memory_shed()) {
        errno = saved;
        p = next_ask(size, zeroed);
    }
    return large_got(p);
}

static NOINLINE void *malloc_beyond(size_t size)
{
    if (UNLIKELY(!start_done()))
        return boot_or_fail(size);
    forwarded();
    void *p = large_more(size);
    return p ? p : watched(next_get(size, false), size);
}

NOINLINE void *malloc_forward(size_t size)
{
    void *p = large_take(size);
    return LIKELY(p != NULL) ? p : malloc_beyond(size);
}

uint32_t pm_seekers;

/* May a request that a pool should have served go to the next allocator? Always, where a signal handler interrupted a
 * slow path, and while the dynamic linker is asked for what is to say that there is no memory: it allocates. */
bool overflow_forwards(size_t size)
{
    heap *h = my_heap;
    PROBE(overflow, size, h);
    if (!pm_pools_ready || pm_config.overflow == OVERFLOW_FORWARD || LOAD(&pm_seekers) > 0 || (heap_is_real(h) && h->inside))
        return true;
    if (pm_config.overflow == OVERFLOW_ABORT)
        report_abort("out of pool memory for %zu bytes, limit %zu (POOLMALLOC_OVERFLOW=abort)", size, pm_config.limit);
    return false;
}

/* ---- malloc, free ---- */

/* POOLMALLOC_GUARD: now and then, instead of a block that would be taken together with others. */
INLINE void *sample(unsigned klass, size_t size)
{
    if (LIKELY(pm_config.guard == 0) || !guard_due(calls_watched() ? 1 : pm_classes[klass].refill))
        return NULL;
    return watched(guard_alloc(size, QUANTUM, BY_MALLOC, CALLER), size);
}

/* A block of the pool's, or what the policy says where it has none. */
INLINE void *pool_get(unsigned klass, size_t size, bool zeroed)
{
    void *p = sample(klass, size);
    if (LIKELY(p == NULL))
        p = zeroed ? alloc_zeroed(klass, size) : alloc_slow(klass, size);
    if (LIKELY(p != NULL))
        return p;
    if (!overflow_forwards(size))
        return out_of_memory();
    forwarded();
    return watched(next_get(size, zeroed), size);
}

NOINLINE static void *malloc_rest(size_t size)
{
    if (UNLIKELY(!start_done()))
        return boot_or_fail(size);
    unsigned klass = class_of(size); /* by what the settings have made of the sizes just now */
    if (UNLIKELY(!pm_pools_ready || klass == CLASS_NONE))
        return malloc_beyond(size);
    return pool_get(klass, size, false);
}

NOINLINE void *malloc_slow(size_t size)
{
    if (size > KEPT_LEAST && class_of(size) == CLASS_NONE)
        return malloc_forward(size);
    void *p = bin_pop_unwatched(size);
    return p ? p : malloc_rest(size);
}

PM_EXPORT void *malloc(size_t size) { return allocate(size, BY_MALLOC); }

static size_t next_usable(void *p) { return pm_next.malloc_usable_size ? pm_next.malloc_usable_size(p) : 0; }

/* Bytes of a sample of POOLMALLOC_GUARD's, or SIZE_MAX: it is none. */
static size_t guarded_size(const void *p, call c) { return UNLIKELY(LOAD(&pm_guarding)) ? guard_size(p, c, CALLER) : SIZE_MAX; }

static NOINLINE void free_next(void *p)
{
    if (UNLIKELY(pm_next.free == NULL))
        return;
    if (!PM_HARDENED && UNLIKELY(LOAD(&pm_guarding)) && guard_free(p, giving_by(CALL_FREE), SIZE_MAX, CALLER))
        return;
    if (UNLIKELY(calls_watched()))
        watch_free(p, next_usable(p));
    large_give(p);
}

NOINLINE void free_foreign(void *p)
{
    if (!p || boot_holds(p))
        return;
    if (UNLIKELY(!large_put(p)))
        free_next(p);
}

PM_EXPORT void free(void *p) { release(p, CALL_FREE, SIZE_MAX); }

void cfree(void *p) ALIAS_OF(free);

PM_EXPORT void free_sized(void *p, size_t size);
PM_EXPORT void free_sized(void *p, size_t size)
{
    release(p, CALL_FREE_SIZED, size);
}

PM_EXPORT void free_aligned_sized(void *p, size_t align, size_t size);
PM_EXPORT void free_aligned_sized(void *p, size_t align, size_t size)
{
    release_given(p, giving_aligned(CALL_FREE_SIZED, align), size);
}

#define CALLOC_KEPT (2 * MIB) /* beyond, most leave some of it alone, which fresh memory does not pay for */

/* ---- calloc ---- */

static NOINLINE void *calloc_forward(size_t n, size_t size)
{
    size_t bytes;
    if (UNLIKELY(__builtin_mul_overflow(n, size, &bytes)))
        return out_of_memory();
    if (UNLIKELY(!start_done()))
        return boot_or_fail(bytes); /* never used before: zero */
    bool kept = bytes > KEPT_LEAST && bytes <= CALLOC_KEPT;
    void *p = kept ? large_take(bytes) : NULL;
    if (p)
        return memset(p, 0, bytes);
    forwarded();
    p = kept ? large_more(bytes) : NULL;
    return p ? memset(p, 0, bytes) : watched(next_get(bytes, true), bytes);
}

static NOINLINE void *calloc_slow(size_t bytes)
{
    void *p = bin_pop_unwatched(bytes);
    if (p)
        return memset(p, 0, bytes);
    if (UNLIKELY(!start_done()))
        return calloc_forward(1, bytes);
    unsigned klass = class_of(bytes);
    if (UNLIKELY(!pm_pools_ready || klass == CLASS_NONE))
        return calloc_forward(1, bytes);
    return pool_get(klass, bytes, true);
}

PM_EXPORT void *calloc(size_t n, size_t size)
{
    size_t bytes;
    bool wraps = __builtin_mul_overflow(n, size, &bytes);
    if (PM_HARDENED)
        return wraps ? out_of_memory() : allocate_hardened(bytes, BY_MALLOC, CALLER);
    if (UNLIKELY(wraps || bytes > BLOCK_MAX))
        return calloc_forward(n, size);
    void *p = bin_pop(bin_of_size(my_heap, bytes));
    return LIKELY(p != NULL) ? memset(p, 0, bytes) : calloc_slow(bytes);
}

/* ---- realloc ---- */

static void *move(void *from, void *to, size_t bytes)
{
    if (!to)
        return NULL;
    memcpy(to, from, bytes);
    release(from, CALL_REALLOC, SIZE_MAX);
    return to;
}

static void *next_resize(void *p, size_t size)
{
    large_away(1);
    void *to = pm_next.realloc(p, size);
    large_away(-1);
    return to;
}

void *realloc_next(void *p, size_t size)
{
    size_t usable = UNLIKELY(calls_watched()) ? next_usable(p) : pm_large_size(p), most = large_round(size);
    int saved = errno;
    void *to = next_resize(p, most);
    if (UNLIKELY(!to && most > size))
        to = next_resize(p, size);
    if (UNLIKELY(!to && size > 0) && memory_shed())
        to = next_resize(p, size);
    if (to)
        errno = saved;
    if (to || size == 0) {
        large_gone(usable);
        if (UNLIKELY(calls_watched()))
            watch_free(p, usable);
    }
    return watched(large_got(to), size);
}

static NOINLINE void *realloc_foreign(void *p, size_t size)
{
    bool ready = start_done();
    if (boot_holds(p))
        return move(p, allocate(size, BY_MALLOC), size_min(boot_size(p), size));
    if (UNLIKELY(!ready))
        return out_of_memory();
    size_t guarded = guarded_size(p, CALL_REALLOC);
    if (UNLIKELY(guarded != SIZE_MAX && size > 0))
        return move(p, allocate(size, BY_MALLOC), size_min(guarded, size));
    if (UNLIKELY(guarded != SIZE_MAX)) {
        guard_free(p, giving_by(CALL_REALLOC), SIZE_MAX, CALLER);
        return NULL;
    }
    size_t usable = calls_watched() ? 0 : next_usable(p);
    if (size <= usable && size > usable / 2 && usable - size < MIB)
        return p;
    bool pooled = size > 0 && size <= BLOCK_MAX && class_of(size) != CLASS_NONE && pm_pools_ready && pm_next.malloc_usable_size;
    void *to = pooled ? alloc_slow(class_of(size), size) : NULL;
    if (!to) {
        forwarded();
        return realloc_next(p, size);
    }
    return move(p, to, size_min(pm_next.malloc_usable_size(p), size));
}

/* Of a block that was freed and handed out again the number is wrong, which costs no more than a bit of room. */
static uint32_t *growth_slot(const void *p, uint32_t *key)
{
    *key = (uint32_t)((uintptr_t)p >> QUANTUM_SHIFT << 4);
    return &my_heap->grown[*key * 0x9e3779b1u >> 27];
}

static unsigned growth_of(const void *p)
{
    uint32_t key, found = *growth_slot(p, &key);
    return (found & ~15u) == key ? found & 15 : 0;
}

static void growth_note(const void *p, unsigned moves)
{
    uint32_t key, *slot = growth_slot(p, &key);
    if (heap_is_real(my_heap))
        *slot = key | (moves < 15 ? moves : 15);
}

/* A buffer that has moved twice to grow gets half as much again: it will skip a block size or two. */
static void *grow(void *p, size_t old, size_t size)
{
    const size_list *sizes = &pm_config.sizes; /* none where pools are switched off, and a program makes some of its own */
    size_t largest = sizes->length ? sizes->at[sizes->length - 1].size : 0, more = size + size / 2;
    unsigned moves = growth_of(p);
    void *to = moves < 2 || more < size ? NULL : allocate(more > largest && size <= largest ? largest : more, BY_MALLOC);
    to = to ? to : allocate(size, BY_MALLOC);
    growth_note(to, moves + 1);
    return move(p, to, old);
}

static COLD void realloc_nowhere(const void *p, const void *caller)
{
    if (LOAD(&slab_of(p)->home) != HEAP_POOL) /* blocks of explicit pools may lie at multiples of 8 */
        misuse_abort(&(misuse){.call = CALL_REALLOC, .pointer = p, .what = "no block begins there", .caller = caller});
}

static void *stay(void *p, size_t size)
{
    if (UNLIKELY(pm_every_call_slow))
        watch_resize(p, size);
    return p;
}

static NOINLINE void *resize(void *p, size_t size, const void *caller)
{
    size_t old = block_size_of(p);
    if (UNLIKELY((uintptr_t)p % QUANTUM))
        realloc_nowhere(p, caller);
    if (size == 0) { /* as the C library does */
        release(p, CALL_REALLOC, SIZE_MAX);
        return NULL;
    }
    if (size <= old && size > old / 2)
        return stay(p, size);
    if (size > old && !calls_watched())
        return grow(p, old, size);
    void *to = allocate(size, BY_MALLOC);
    if (!to && size <= old)
        return stay(p, size);
    return move(p, to, size_min(old, size));
}

/* Stays in place as long as more than half of the block is used. */
PM_EXPORT void *realloc(void *p, size_t size)
{
    if (PM_HARDENED)
        return realloc_hardened(p, size, CALLER);
    if (!p)
        return allocate(size, BY_MALLOC);
    if (UNLIKELY(!region_holds(p)))
        return realloc_foreign(p, size);
    size_t old = block_size_of(p);
    if (size <= old && size > old / 2 && (uintptr_t)p % QUANTUM == 0 && LIKELY(!pm_every_call_slow))
        return p;
    return resize(p, size, CALLER);
}

/* ---- aligned ---- */

/* The class all of whose blocks lie so. */
INLINE unsigned aligned_class(const uint16_t *table, size_t align, size_t size)
{
    return LIKELY(is_power_of_two(align) && align <= ALIGN_POOLED && size <= BLOCK_MAX) ? class_aligned_in(table, size, align) : CLASS_NONE;
}

/* NULL: the pool has none that lies so. */
static void *aligned_from_pool(unsigned klass, size_t align, size_t size)
{
    void *p = alloc_slow(klass, size);
    if (UNLIKELY((uintptr_t)p & (align - 1))) { /* at the limit, a block of a larger class */
        free_block(p);
        p = NULL;
    }
    return p;
}

static unsigned aligned_class_now(size_t align, size_t size)
{
    if (!pm_pools_ready)
        return CLASS_NONE;
    classes_align();
    return aligned_class(LOAD(&pm_sizes), align, size);
}

static void *next_aligned(void *(*get)(size_t, size_t), size_t align, size_t size)
{
    forwarded();
    large_away(1);
    void *p = get(align, size);
    large_away(-1);
    if (UNLIKELY(!p) && errno == ENOMEM && memory_shed()) {
        large_away(1);
        p = get(align, size);
        large_away(-1);
    }
    return watched(large_got(p), size);
}

static NOINLINE void *aligned_slow(size_t align, size_t size)
{
    if (UNLIKELY(!start_done())) /* nothing aligned is asked for while we start; if it were, the arena's 16 bytes are what there is */
        return out_of_memory();
    unsigned klass = aligned_class_now(align, size);
    void *p = klass == CLASS_NONE ? NULL : aligned_from_pool(klass, align, size);
    if (p)
        return p;
    return klass == CLASS_NONE || overflow_forwards(size) ? next_aligned(pm_next.memalign, align, size_max(size, 1)) : out_of_memory();
}

INLINE void *alloc_aligned(size_t align, size_t size)
{
    if (PM_HARDENED)
        return allocate_aligned(size, align, made_aligned(BY_MALLOC, align), CALLER);
    void *p = bin_pop(&my_heap->bins[aligned_class(pm_bin_offset, align, size)]);
    return LIKELY(p != NULL) ? p : aligned_slow(align, size);
}

PM_EXPORT void *memalign(size_t align, size_t size) { return alloc_aligned(align, size); }

/* What is no power of two newer C libraries refuse and older ones round up: as the next allocator does. */
static COLD void *aligned_odd(size_t align, size_t size)
{
    void *(*next)(size_t, size_t);
    *(void **)&next = start_done() ? next_function("aligned_alloc") : NULL;
    return next ? next_aligned(next, align, size) : alloc_aligned(align, size);
}

PM_EXPORT void *aligned_alloc(size_t align, size_t size)
{
    return LIKELY(is_power_of_two(align)) ? alloc_aligned(align, size) : aligned_odd(align, size);
}

PM_EXPORT int posix_memalign(void **out, size_t align, size_t size)
{
    if (!is_power_of_two(align) || align % sizeof(void *) != 0)
        return EINVAL;
    int saved = errno;
    void *p = alloc_aligned(align, size);
    errno = p ? saved : ENOMEM; /* as the C library does */
    if (!p)
        return ENOMEM;
    *out = p;
    return 0;
}

PM_EXPORT void *valloc(size_t size) { return memalign(os_page_size(), size); }

PM_EXPORT void *pvalloc(size_t size)
{
    size_t page = os_page_size();
    if (size > PTRDIFF_MAX - page)
        return out_of_memory();
    return memalign(page, size_max(page, round_up(size, page)));
}

static NOINLINE size_t usable_elsewhere(void *p)
{
    if (!p)
        return 0;
    size_t guarded = guarded_size(p, CALL_USABLE_SIZE);
    if (UNLIKELY(guarded != SIZE_MAX))
        return guarded;
    return boot_holds(p) ? boot_size(p) : next_usable(p);
}

PM_EXPORT size_t malloc_usable_size(void *p)
{
    size_t size = PM_HARDENED && p ? hardened_size(p, CALL_USABLE_SIZE, CALLER) : SIZE_MAX;
    if (size != SIZE_MAX)
        return size;
    if (UNLIKELY(!region_holds(p)))
        return usable_elsewhere(p);
    if (UNLIKELY(READ(&slab_of(p)->owner) == my_heap && slab_of(p)->bin->free == p))
        misuse_abort(&(misuse){.call = CALL_USABLE_SIZE, .pointer = p, .what = "freed before", .caller = CALLER});
    return UNLIKELY(pm_every_call_slow) ? watch_usable(p, block_size_of(p)) : block_size_of(p);
}
