/* malloc.c: The malloc family and the C++ operators, exported. Everything small goes to the pools, everything
 * else to the next allocator. malloc and free are the two functions whose instructions are counted by a test. */
#include "pools/alloc.h"
#include "ground/config.h"
#include "preload/next.h"
#include "ground/os.h"
#include "ground/os_malloc.h"
#include "insight/print.h"
#include "insight/profile.h"
#include "preload/start.h"
#include "insight/stats.h"
#include "ground/text.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIAS_OF(f) __attribute__((alias(#f), visibility("default"), used, nothrow, leaf))

/* ---- forwarding ---- */

static void forwarded(bool small)
{
    heap *h = my_heap;
    next_prime();
    if (LIKELY(heap_is_real(h))) {
        *(small ? &h->overflowed : &h->forwarded) += 1;
    } else {
        __atomic_add_fetch(&pm_forwarded_elsewhere, 1, __ATOMIC_RELAXED);
    }
}

static void *out_of_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

static void *boot_or_fail(size_t size)
{
    void *p = boot_alloc(size);
    return p ? p : out_of_memory();
}

static NOINLINE void *malloc_forward(size_t size)
{
    if (UNLIKELY(!start_done()))
        return boot_or_fail(size);
    forwarded(false);
    return profiled(pm_next.malloc(size), size);
}

/* May a request that a pool should have served go to the next allocator? Always, where a signal handler interrupted a
 * slow path. */
static bool overflow_forwards(size_t size)
{
    heap *h = my_heap;
    PROBE(overflow, size, h);
    if (!pm_pools_ready || pm_config.overflow == OVERFLOW_FORWARD || (heap_is_real(h) && h->inside))
        return true;
    if (pm_config.overflow == OVERFLOW_ABORT)
        report_abort("out of pool memory for %zu bytes, limit %zu (POOLMALLOC_OVERFLOW=abort)", size, pm_config.limit);
    return false;
}

/* ---- malloc, free ---- */

static NOINLINE void *malloc_slow(size_t size)
{
    if (UNLIKELY(!start_done()))
        return boot_or_fail(size);
    unsigned klass = class_of(size);
    if (UNLIKELY(!pm_pools_ready || klass == CLASS_NONE))
        return malloc_forward(size);
    void *p = alloc_slow(klass);
    if (LIKELY(p != NULL))
        return profiled(p, size);
    if (!overflow_forwards(size))
        return out_of_memory();
    forwarded(true);
    return profiled(pm_next.malloc(size), size);
}

INLINE void *allocate(size_t size)
{
    if (UNLIKELY(size > BLOCK_MAX))
        return malloc_forward(size);
    void *p = bin_pop(bin_of_size(my_heap, size));
    return LIKELY(p != NULL) ? p : malloc_slow(size);
}

PM_EXPORT void *malloc(size_t size) { return allocate(size); }

/* Of a block of the next allocator's: was more asked for than pools serve? A few bytes less may count as more. */
static bool is_large(void *p) { return pm_next.malloc_usable_size && pm_next.malloc_usable_size(p) > BLOCK_MAX; }

static NOINLINE void free_foreign(void *p)
{
    if (!p || boot_holds(p) || UNLIKELY(pm_next.free == NULL))
        return;
    if (UNLIKELY(pm_profiling) && is_large(p))
        profile_free_large();
    pm_next.free(p);
}

INLINE void release(void *p)
{
    if (UNLIKELY(!region_holds(p))) {
        free_foreign(p);
        return;
    }
    free_block(p);
}

PM_EXPORT void free(void *p) { release(p); }

void cfree(void *p) ALIAS_OF(free);

/* The hints of size and alignment are not looked at: strict checks kill real programs. */
PM_EXPORT void free_sized(void *p, size_t size);
PM_EXPORT void free_sized(void *p, size_t size)
{
    (void)size;
    release(p);
}

PM_EXPORT void free_aligned_sized(void *p, size_t align, size_t size);
PM_EXPORT void free_aligned_sized(void *p, size_t align, size_t size)
{
    (void)align;
    (void)size;
    release(p);
}

/* ---- calloc ---- */

static NOINLINE void *calloc_forward(size_t n, size_t size)
{
    if (UNLIKELY(!start_done())) {
        size_t bytes;
        return __builtin_mul_overflow(n, size, &bytes) ? out_of_memory() : boot_or_fail(bytes); /* never used before: zero */
    }
    forwarded(false);
    return profiled(pm_next.calloc(n, size), n * size);
}

static NOINLINE void *calloc_slow(size_t bytes)
{
    if (UNLIKELY(!start_done()))
        return calloc_forward(1, bytes);
    unsigned klass = class_of(bytes);
    if (UNLIKELY(!pm_pools_ready || klass == CLASS_NONE))
        return calloc_forward(1, bytes);
    void *p = alloc_zeroed(klass);
    if (LIKELY(p != NULL))
        return profiled(p, bytes);
    if (!overflow_forwards(bytes))
        return out_of_memory();
    forwarded(true);
    return profiled(pm_next.calloc(1, bytes), bytes);
}

PM_EXPORT void *calloc(size_t n, size_t size)
{
    size_t bytes;
    if (UNLIKELY(__builtin_mul_overflow(n, size, &bytes) || bytes > BLOCK_MAX))
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
    release(from);
    return to;
}

static void *realloc_next(void *p, size_t size)
{
    bool was_large = pm_profiling && is_large(p);
    void *to = pm_next.realloc(p, size);
    if (UNLIKELY(was_large) && (to || size == 0))
        profile_free_large();
    return profiled(to, size);
}

static void *realloc_foreign(void *p, size_t size)
{
    bool ready = start_done();
    if (boot_holds(p))
        return move(p, allocate(size), size_min(boot_size(p), size));
    if (UNLIKELY(!ready))
        return out_of_memory();
    if (size == 0 || size > BLOCK_MAX || class_of(size) == CLASS_NONE || !pm_pools_ready || !pm_next.malloc_usable_size) {
        forwarded(false);
        return realloc_next(p, size);
    }
    void *to = profiled(alloc_class(class_of(size)), size);
    if (!to)
        return realloc_next(p, size);
    return move(p, to, size_min(pm_next.malloc_usable_size(p), size));
}

static void *stay(void *p, size_t size)
{
    if (UNLIKELY(pm_profiling))
        profile_resize(p, size);
    return p;
}

/* Stays in place as long as at least half of the block is used. */
PM_EXPORT void *realloc(void *p, size_t size)
{
    if (!p)
        return allocate(size);
    if (!region_holds(p))
        return realloc_foreign(p, size);
    if (size == 0) { /* as the C library does */
        release(p);
        return NULL;
    }
    size_t old = block_size_of(p);
    if (size <= old && size > old / 2)
        return stay(p, size);
    void *to = allocate(size);
    if (!to && size <= old)
        return stay(p, size);
    return move(p, to, size_min(old, size));
}

/* ---- aligned ---- */

/* The class all of whose blocks lie so. */
INLINE unsigned aligned_class(size_t align, size_t size)
{
    return LIKELY(is_power_of_two(align) && align <= ALIGN_POOLED && size <= BLOCK_MAX) ? class_aligned(size, align) : CLASS_NONE;
}

/* NULL: it is the next allocator's. */
static void *aligned_from_pool(size_t align, size_t size)
{
    if (!start_done() || !pm_pools_ready)
        return NULL;
    classes_align();
    unsigned klass = aligned_class(align, size);
    void *p = klass == CLASS_NONE ? NULL : alloc_class(klass);
    if (UNLIKELY((uintptr_t)p & (align - 1))) { /* at the limit, a block of a larger class */
        free_block(p);
        p = NULL;
    }
    return profiled(p, size);
}

/* Nothing aligned is asked for while we start; if it were, the arena's 16 bytes are what there is. */
static bool aligned_refused(size_t align, size_t size)
{
    if (UNLIKELY(!start_done()))
        return true;
    bool pool = pm_pools_ready && aligned_class(align, size) != CLASS_NONE;
    forwarded(pool);
    return pool && !overflow_forwards(size);
}

static NOINLINE void *aligned_slow(size_t align, size_t size)
{
    void *p = aligned_from_pool(align, size);
    if (p)
        return p;
    return aligned_refused(align, size) ? out_of_memory() : profiled(pm_next.memalign(align, size_max(size, 1)), size);
}

INLINE void *alloc_aligned(size_t align, size_t size)
{
    void *p = bin_pop(&my_heap->bins[aligned_class(align, size)]);
    return LIKELY(p != NULL) ? p : aligned_slow(align, size);
}

PM_EXPORT void *memalign(size_t align, size_t size) { return alloc_aligned(align, size); }

/* What is no power of two newer C libraries refuse and older ones round up: as the next allocator does. */
static COLD void *aligned_odd(size_t align, size_t size)
{
    void *(*next)(size_t, size_t);
    *(void **)&next = start_done() ? next_function("aligned_alloc") : NULL;
    if (!next)
        return alloc_aligned(align, size);
    forwarded(false);
    return profiled(next(align, size), size);
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
    errno = saved;
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

PM_EXPORT size_t malloc_usable_size(void *p)
{
    if (!p)
        return 0;
    if (region_holds(p))
        return UNLIKELY(pm_profiling) ? profile_usable(p, block_size_of(p)) : block_size_of(p);
    if (boot_holds(p))
        return boot_size(p);
    return pm_next.malloc_usable_size ? pm_next.malloc_usable_size(p) : 0;
}

/* ---- C++ operators ---- */

/* The C++ runtime's own operator, to which a failing one hands over: it knows new_handler and bad_alloc. Never another
 * malloc library's. */
static void *runtime_operator(const char *name)
{
    static const char *const runtimes[] = {"libstdc++.so.6", "libc++.so.1"};
    for (size_t i = 0; i < sizeof runtimes / sizeof *runtimes; i++) {
        void *runtime = dlopen(runtimes[i], RTLD_LAZY | RTLD_NOLOAD);
        void *f = runtime ? dlsym(runtime, name) : NULL;
        if (f)
            return f;
    }
    report_abort("%s: out of memory, and no C++ runtime to say so", name);
}

#define OPERATOR_NEW(name, symbol, get, parameters, ...)                                                               \
    PM_EXPORT void *name parameters __asm__(symbol);                                                                   \
    static COLD void *name##_failed parameters                                                                         \
    {                                                                                                                  \
        void *(*runtime) parameters;                                                                                   \
        *(void **)&runtime = runtime_operator(symbol);                                                                 \
        return runtime(__VA_ARGS__);                                                                                   \
    }                                                                                                                  \
    PM_EXPORT void *name parameters                                                                                    \
    {                                                                                                                  \
        void *p = get;                                                                                                 \
        return LIKELY(p != NULL) ? p : name##_failed(__VA_ARGS__);                                                     \
    }

#define NEW_ALIGNED(size, align) (is_power_of_two(align) ? memalign(size_max(align, QUANTUM), size) : NULL)
typedef const void *nothrow_tag;

/* As the standard says, and programs that replace only some of them rely on: array forms call the single ones, nothrow
 * forms the throwing ones (in the runtime, which can catch), all deletes the plain one; through the symbol table. */
static NOINLINE void *new_slow(size_t size)
{
    void *(*runtime)(size_t);
    void *p = allocate(size);
    if (LIKELY(p != NULL))
        return p;
    *(void **)&runtime = runtime_operator("_Znwm");
    return runtime(size);
}

static void *ours_new(size_t size)
{
    void *p = LIKELY(size <= BLOCK_MAX) ? bin_pop(bin_of_size(my_heap, size)) : NULL;
    return LIKELY(p != NULL) ? p : new_slow(size);
}

void *new_single(size_t size) __asm__("_Znwm") __attribute__((alias("ours_new"), visibility("default"), used));

INLINE bool new_is_replaced(void) { return new_single != ours_new; }

PM_EXPORT void *new_array(size_t size) __asm__("_Znam");
PM_EXPORT void *new_array(size_t size) { return new_single(size); }
OPERATOR_NEW(new_single_nothrow, "_ZnwmRKSt9nothrow_t", new_is_replaced() ? NULL : allocate(size), (size_t size, nothrow_tag tag), size, tag)
OPERATOR_NEW(new_array_nothrow, "_ZnamRKSt9nothrow_t", new_is_replaced() ? NULL : allocate(size), (size_t size, nothrow_tag tag), size, tag)
OPERATOR_NEW(new_single_aligned, "_ZnwmSt11align_val_t", NEW_ALIGNED(size, align), (size_t size, size_t align), size, align)
OPERATOR_NEW(new_array_aligned, "_ZnamSt11align_val_t", NEW_ALIGNED(size, align), (size_t size, size_t align), size, align)
OPERATOR_NEW(new_single_aligned_nothrow, "_ZnwmSt11align_val_tRKSt9nothrow_t", NEW_ALIGNED(size, align),
             (size_t size, size_t align, nothrow_tag tag), size, align, tag)
OPERATOR_NEW(new_array_aligned_nothrow, "_ZnamSt11align_val_tRKSt9nothrow_t", NEW_ALIGNED(size, align),
             (size_t size, size_t align, nothrow_tag tag), size, align, tag)

void delete_single(void *p) __asm__("_ZdlPv");
void delete_single(void *p) ALIAS_OF(free);

/* Sizes, alignments and tags come in further registers, which are not looked at. Aligned blocks come from the same pools
 * and next allocator, but the plain delete may be the program's own: those forms go to free. */
#define OPERATOR_DELETE(name, symbol)                                                                                  \
    PM_EXPORT void name(void *p) __asm__(symbol);                                                                      \
    PM_EXPORT void name(void *p) { delete_single(p); }
#define OPERATOR_DELETE_ALIGNED(name, symbol)                                                                          \
    void name(void *p) __asm__(symbol);                                                                                \
    void name(void *p) ALIAS_OF(free);

OPERATOR_DELETE(delete_array, "_ZdaPv")
OPERATOR_DELETE(delete_single_nothrow, "_ZdlPvRKSt9nothrow_t")
OPERATOR_DELETE(delete_array_nothrow, "_ZdaPvRKSt9nothrow_t")
OPERATOR_DELETE(delete_single_sized, "_ZdlPvm")
OPERATOR_DELETE(delete_array_sized, "_ZdaPvm")
OPERATOR_DELETE_ALIGNED(delete_single_aligned, "_ZdlPvSt11align_val_t")
OPERATOR_DELETE_ALIGNED(delete_array_aligned, "_ZdaPvSt11align_val_t")
OPERATOR_DELETE_ALIGNED(delete_single_aligned_nothrow, "_ZdlPvSt11align_val_tRKSt9nothrow_t")
OPERATOR_DELETE_ALIGNED(delete_array_aligned_nothrow, "_ZdaPvSt11align_val_tRKSt9nothrow_t")
OPERATOR_DELETE_ALIGNED(delete_single_sized_aligned, "_ZdlPvmSt11align_val_t")
OPERATOR_DELETE_ALIGNED(delete_array_sized_aligned, "_ZdaPvmSt11align_val_t")

/* ---- what tells and tunes: the next allocator's answer, and the pools' ---- */

#define NEXT(result, name, parameters)                                                                                 \
    result(*next) parameters;                                                                                          \
    *(void **)&next = start_done() ? next_function(#name) : NULL

PM_EXPORT int malloc_trim(size_t pad)
{
    NEXT(int, malloc_trim, (size_t));
    int saved = errno;
    size_t bytes = pm_pools_ready ? pools_trim() : 0;
    errno = saved;
    int released = next ? next(pad) : 0;
    return released || bytes > 0;
}

PM_EXPORT int mallopt(int parameter, int value)
{
    NEXT(int, mallopt, (int, int));
    return next ? next(parameter, value) : 0;
}

PM_EXPORT void malloc_stats(void)
{
    NEXT(void, malloc_stats, (void));
    if (next)
        next();
    stats_report_to(2, FORMAT_TEXT);
}

static size_t pools_totals(size_t *committed, size_t *empty)
{
    pm_stats s;
    stats_gather(&s);
    *committed = s.committed_bytes;
    *empty = s.empty_slabs * SLAB_SIZE;
    return s.used_bytes;
}

PM_EXPORT struct mallinfo2 mallinfo2(void)
{
    NEXT(struct mallinfo2, mallinfo2, (void));
    struct mallinfo2 m;
    memset(&m, 0, sizeof m);
    if (next)
        m = next();
    size_t committed, empty, used = pools_totals(&committed, &empty);
    m.arena += committed;
    m.uordblks += used;
    m.fordblks += committed - size_min(used, committed);
    m.keepcost += empty;
    return m;
}

static int saturate(size_t n) { return n > INT32_MAX ? INT32_MAX : (int)n; }

PM_EXPORT struct mallinfo mallinfo(void)
{
    struct mallinfo2 m = mallinfo2();
    return (struct mallinfo){saturate(m.arena),    saturate(m.ordblks),  saturate(m.smblks),  saturate(m.hblks),
                             saturate(m.hblkhd),   saturate(m.usmblks),  saturate(m.fsmblks), saturate(m.uordblks),
                             saturate(m.fordblks), saturate(m.keepcost)};
}

/* One element more, before the end of the document, so that it stays one document. */
static void info_write(FILE *stream, const char *document)
{
    static const char end[] = "</malloc>";
    const char *tail = document ? strstr(document, end) : NULL;
    pm_stats s;
    stats_gather(&s);
    fprintf(stream, "%.*s<poolmalloc version=\"%s\" committed=\"%zu\" used=\"%zu\">\n", tail ? (int)(tail - document) : INT32_MAX,
            tail ? document : "<malloc version=\"1\">\n", PM_VERSION, s.committed_bytes, s.used_bytes);
    for (size_t i = 0; i < s.pools; i++)
        if (s.row[i].slabs)
            fprintf(stream, "<pool size=\"%zu\" slabs=\"%zu\" capacity=\"%zu\" used=\"%zu\"/>\n", s.row[i].block_size,
                    s.row[i].slabs, s.row[i].capacity, s.row[i].used);
    fprintf(stream, "</poolmalloc>\n%s", tail ? tail : "</malloc>\n");
}

PM_EXPORT int malloc_info(int options, FILE *stream)
{
    NEXT(int, malloc_info, (int, FILE *));
    char *document = NULL;
    size_t bytes = 0;
    if (options != 0)
        return EINVAL;
    FILE *memory = next ? open_memstream(&document, &bytes) : NULL;
    if (memory) {
        next(options, memory);
        fclose(memory);
    }
    info_write(stream, document);
    free(document);
    return 0;
}
