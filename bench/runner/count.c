/* count.c: linked into libpoolmalloc-count.so alone (-DPOOLMALLOC_COUNT=ON). The compiler calls what is defined here before each
 * access of the library to memory and instead of each atomic operation: the same hooks that ThreadSanitizer has. They count, as if
 * each thread had a processor of its own: locks taken, atomic read-modify-writes, and lines of the cache that go from one to another.
 * May touch addresses of the library's structures, to tell where a line belongs; $BENCH_COUNT_FILE gets one line of JSON a process. */
#include "explicit/pool.h"
#include "pools/depot.h"
#include "pools/heap.h"
#include "pools/registry.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Where a line belongs; elsewhere: slab records, bits, settings. */
typedef enum { OWN_HEAP, OTHER_HEAPS, DEPOT, REGISTRY, POOLS, BLOCKS, ELSEWHERE, ZONES } zone;
static const char *const zone_name[ZONES] = {"own_heap", "other_heaps", "depot", "registry", "pools", "blocks", "elsewhere"};

/* written: lines written that another thread had read or written since; read: lines read that another has written since. */
typedef struct counts {
    uint64_t lock, rmw, written, read;
} counts;
static counts total[ZONES];

/* A line's word: its tag, who has it (a bit each), whether one has changed it. Threads beyond PROCESSORS share one with others. */
enum { LINE_SHIFT = 6, LINES_SHIFT = 22, PROCESSORS = 32, CHANGED_SHIFT = PROCESSORS, TAG_SHIFT = CHANGED_SHIFT + 1 };
static uint64_t lines[1 << LINES_SHIFT];
static uint32_t threads;
static __thread uint32_t thread;
static uint32_t process;

static bool within(const void *p, const void *start, size_t bytes) { return (uintptr_t)p - (uintptr_t)start < bytes; }

static bool within_heaps(const void *p)
{
    const registry *r = &pm_registry;
    size_t further = r->count > HEAPS_FIRST ? r->count - HEAPS_FIRST : 0;
    return within(p, r->first, HEAPS_FIRST * r->stride) || within(p, r->heaps, further * r->stride);
}

static zone zone_of(const void *p)
{
    if (within(p, my_heap, sizeof(heap)))
        return OWN_HEAP;
    if (region_holds(p))
        return BLOCKS;
    if (within(p, &pm_depot, sizeof pm_depot))
        return DEPOT;
    if (within(p, &pm_registry, sizeof pm_registry))
        return REGISTRY;
    if (within(p, &pm_pools, sizeof pm_pools))
        return POOLS;
    return within_heaps(p) ? OTHER_HEAPS : ELSEWHERE;
}

static void add(uint64_t *count) { __atomic_fetch_add(count, 1, __ATOMIC_RELAXED); }

static uint64_t thread_bit(void)
{
    if (!thread)
        thread = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
    return (uint64_t)1 << thread % PROCESSORS;
}

/* The word of a line after an access; *moved: another thread had it. */
static uint64_t line_after(uint64_t word, uint64_t tag, bool writes, bool *moved)
{
    uint64_t me = thread_bit(), everybody = ((uint64_t)1 << PROCESSORS) - 1, changed = (uint64_t)1 << CHANGED_SHIFT;
    uint64_t has = word >> TAG_SHIFT == tag ? word & everybody : 0, was_changed = has ? word & changed : 0;
    tag <<= TAG_SHIFT;
    *moved = writes ? (has & ~me) != 0 : was_changed && !(has & me);
    if (writes)
        return tag | changed | me;
    return tag | (has & me ? was_changed : 0) | has | me;
}

static void line_touch(uintptr_t line, bool writes)
{
    uint64_t *word = &lines[line % (1 << LINES_SHIFT)], old = LOAD(word), new;
    bool moved;
    do
        new = line_after(old, (line >> LINES_SHIFT) + 1, writes, &moved);
    while (new != old && !__atomic_compare_exchange_n(word, &old, new, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    counts *at = moved ? &total[zone_of((void *)(line << LINE_SHIFT))] : NULL;
    if (at)
        add(writes ? &at->written : &at->read);
}

static void touch(const void *p, size_t bytes, bool writes)
{
    for (uintptr_t line = (uintptr_t)p >> LINE_SHIFT, last = ((uintptr_t)p + bytes - 1) >> LINE_SHIFT; line <= last; line++)
        line_touch(line, writes);
}

static void change(const void *p, size_t bytes)
{
    add(&total[zone_of(p)].rmw);
    touch(p, bytes, true);
}

/* os_lock_try and os_lock_wait are the only ones that change 32 bits from 0 to 1, or exchange them for 2. */
static void lock_note(const void *p, bool taken)
{
    if (taken)
        add(&total[zone_of(p)].lock);
}

__attribute__((constructor)) static void begin(void) { process = (uint32_t)getpid(); }

__attribute__((destructor)) static void end(void)
{
    static char out[2048];
    const char *path = getenv("BENCH_COUNT_FILE");
    int file = path && process == (uint32_t)getpid() ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    int n = snprintf(out, sizeof out, "{\"threads\": %u", threads);
    for (unsigned z = 0; z < ZONES; z++)
        n += snprintf(out + n, sizeof out - (size_t)n,
                      ", \"%s\": {\"lock\": %" PRIu64 ", \"rmw\": %" PRIu64 ", \"written\": %" PRIu64 ", \"read\": %" PRIu64 "}",
                      zone_name[z], total[z].lock, total[z].rmw, total[z].written, total[z].read);
    n += snprintf(out + n, sizeof out - (size_t)n, "}\n");
    if (file >= 0 && write(file, out, (size_t)n) == n)
        close(file);
}

/* ---- what the compiler calls ---- */

#define HOOK(type, name, ...)          \
    type __tsan_##name(__VA_ARGS__);   \
    type __tsan_##name(__VA_ARGS__)

#define ACCESS(bytes)                                                         \
    HOOK(void, read##bytes, void *p) { touch(p, bytes, false); }              \
    HOOK(void, write##bytes, void *p) { touch(p, bytes, true); }              \
    HOOK(void, unaligned_read##bytes, void *p) { touch(p, bytes, false); }    \
    HOOK(void, unaligned_write##bytes, void *p) { touch(p, bytes, true); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

HOOK(void, read_range, void *p, size_t bytes) { touch(p, bytes, false); }
HOOK(void, write_range, void *p, size_t bytes) { touch(p, bytes, true); }
HOOK(void, init, void) {}
HOOK(void, func_entry, void *caller) { (void)caller; }
HOOK(void, func_exit, void) {}
HOOK(void, atomic_thread_fence, int order) { (void)order, __atomic_thread_fence(__ATOMIC_SEQ_CST); }
HOOK(void, atomic_signal_fence, int order) { (void)order, __atomic_signal_fence(__ATOMIC_SEQ_CST); }

/* Every order is the strongest. */
#define FETCH(word, name, operation)                                                   \
    HOOK(word, name##_fetch_##operation, word *p, word v, int order)                   \
    {                                                                                  \
        (void)order;                                                                   \
        change(p, sizeof *p);                                                          \
        return __atomic_fetch_##operation(p, v, __ATOMIC_SEQ_CST);                     \
    }

#define COMPARE(word, name, strength)                                                  \
    HOOK(bool, name##_compare_exchange_##strength, word *p, word *expected, word v, int order, int failed) \
    {                                                                                  \
        (void)order, (void)failed;                                                     \
        bool from_zero = *expected == 0;                                               \
        change(p, sizeof *p);                                                          \
        bool done = __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
        lock_note(p, sizeof *p == 4 && done && from_zero && v == 1);                   \
        return done;                                                                   \
    }

#define ATOMIC(word, name)                                                             \
    COMPARE(word, name, strong) COMPARE(word, name, weak)                              \
    HOOK(word, name##_compare_exchange_val, word *p, word expected, word v, int order, int failed) \
    {   /* clang's one for both */                                                     \
        __tsan_##name##_compare_exchange_strong(p, &expected, v, order, failed);       \
        return expected;                                                               \
    }                                                                                  \
    HOOK(word, name##_exchange, word *p, word v, int order)                            \
    {                                                                                  \
        (void)order;                                                                   \
        change(p, sizeof *p);                                                          \
        word old = __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                        \
        lock_note(p, sizeof *p == 4 && v == 2 && old == 0);                            \
        return old;                                                                    \
    }                                                                                  \
    HOOK(word, name##_load, const word *p, int order)                                  \
    {                                                                                  \
        (void)order;                                                                   \
        touch(p, sizeof *p, false);                                                    \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                   \
    }                                                                                  \
    HOOK(void, name##_store, word *p, word v, int order)                               \
    {                                                                                  \
        touch(p, sizeof *p, true);                                                     \
        if (order == __ATOMIC_SEQ_CST)                                                 \
            add(&total[zone_of(p)].rmw); /* as dear as one: x86-64 has no other way */ \
        __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                      \
    }                                                                                  \
    FETCH(word, name, add) FETCH(word, name, sub) FETCH(word, name, and) FETCH(word, name, or) FETCH(word, name, xor)
ATOMIC(uint8_t, atomic8)
ATOMIC(uint16_t, atomic16)
ATOMIC(uint32_t, atomic32)
ATOMIC(uint64_t, atomic64)
