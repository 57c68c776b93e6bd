/* poolmalloc.h: the C API of poolmalloc, for C99 and C++11 or later. MIT license.
 *
 * Every function may be called from any thread at any time unless it says otherwise. Sizes are bytes. */
#ifndef POOLMALLOC_H
#define POOLMALLOC_H

#if defined(__cplusplus) ? __cplusplus < 201103L : !defined(__STDC_VERSION__) || __STDC_VERSION__ < 199901L
#error "poolmalloc.h needs C99 or later (-std=c99), or C++11 or later (-std=c++11)"
#endif

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PM_API __attribute__((visibility("default")))
#define PM_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define PM_API
#define PM_PRINTF(text, first)
#endif

/* C++20 warns of every field that a designated initialiser leaves out, unless it has a default. */
#if defined(__cplusplus) && __cplusplus >= 202002L
#define PM_ZERO {}
#else
#define PM_ZERO
#endif

/* The version, "major.minor.patch". */
PM_API const char *pm_version(void);

/* ---- The pools behind malloc, seen from inside ---- */

#define PM_STATS_ROWS 128

typedef struct pm_stats_row {
    char name[32];                /* "malloc-64", the name given to pm_pool_create, or "arenas": slabs of all pm_arenas */
    size_t block_size;            /* bytes */
    size_t slabs;                 /* slabs that hold blocks of it */
    size_t capacity;              /* blocks that these slabs, and the waiting ones, have room for */
    size_t used;                  /* blocks in the program's hands */
    size_t free;                  /* capacity - used */
    size_t resident_bytes;        /* bytes of these slabs that are in memory */
    size_t waiting_slabs;         /* pre-allocated slabs not in use yet */
    size_t allocations, peak;     /* exact, with POOLMALLOC_STATS=full; else 0. A pm_pool's peak is always there */
    size_t slab_tail_bytes;       /* of these slabs, what is too small for one more block */
    size_t learned;               /* 1: POOLMALLOC_BLOCK_SIZES=auto has added it for what the program asks for; else 0 */
} pm_stats_row;

/* Some 15 KiB: no struct for a small stack. */
typedef struct pm_stats {
    size_t struct_size;      /* in: sizeof(pm_stats), so that older callers keep working */
    size_t reserved_bytes;   /* address space mapped */
    size_t committed_bytes;  /* pages of slabs that are or were in use, records and heaps: what POOLMALLOC_LIMIT bounds */
    size_t resident_bytes;   /* of the slabs, what is in memory */
    size_t used_bytes;       /* blocks in the program's hands */
    size_t forwarded_calls;  /* allocations handed to the next allocator: too large, misaligned, while a thread forks, or for want of memory */
    size_t forwarded_small_calls; /* those of them for want of pool memory */
    size_t pool_calls;       /* allocations served by pools; exact with POOLMALLOC_STATS=full, else 0 */
    size_t heaps, idle_heaps; /* heaps made, the first of which is for threads without one; heaps whose thread has ended */
    size_t spare_slabs;      /* empty slabs kept by heaps */
    size_t empty_slabs;      /* empty slabs that hold pages, kept by no heap */
    size_t purged_slabs;     /* empty slabs that hold no pages */
    size_t purges;           /* slabs whose pages went back to the system, so far */
    size_t demoted_pools;    /* explicit pools of PM_SHARING_THREADS, so far, that became LOCKED: there were 1,024 already */
    size_t limit_hits;       /* times that POOLMALLOC_LIMIT refused a slab */
    size_t remote_frees, remote_messages; /* blocks sent home to another thread's heap; atomic exchanges for them */
    size_t busy;             /* heaps whose threads were on a slow path meanwhile; 0: exact (seen from inside: of 256 heaps) */
    size_t pools;            /* rows filled: malloc's block sizes, arenas, then explicit pools, oldest first */
    /* Where there are more pools than rows, the last is the sum of those without one, "N pools more": with a block_size of 1,
     * so that capacity, used and free are bytes. */
    pm_stats_row row[PM_STATS_ROWS];
    size_t explicit_pools;   /* pm_pools there are, those without a row, too */
    size_t kept_bytes;       /* blocks of the next allocator that were freed and are at hand for the next request */
} pm_stats;

typedef enum { PM_FORMAT_TEXT, PM_FORMAT_JSON, PM_FORMAT_PROMETHEUS } pm_format;

/* Fills the first stats->struct_size bytes. Exact for a process whose other threads do not allocate meanwhile, within a
 * few blocks a thread otherwise. 0, or -1 with errno EINVAL (struct_size below 8). O(slabs + heaps). */
PM_API int pm_stats_get(pm_stats *stats);
/* Writes the same to a file descriptor. 0, or -1 with errno EINVAL (no such format) or EIO. Allocates nothing. */
PM_API int pm_stats_print(int fd, pm_format format);
/* Gives the pages of every empty slab, and pages between blocks in use, back to the system: of all threads that are not
 * inside an allocation. Not those between blocks of explicit pools, of block sizes that are pre-allocated and prefaulted or
 * locked, and where more than an eighth of a huge page is in use.
 * Returns the bytes given back, some of which may have been back already. O(slabs + heaps + blocks in use and
 * on their way between threads), a system call for each gap; other threads may wait for one slab's. */
PM_API size_t pm_trim(void);
/* Re-derives every counter of the pools; aborts with one line at the first breach. For tests and debuggers. */
PM_API void pm_check(void);
/* The calling thread will not allocate for a while: what it keeps at hand goes back where other threads can use it. */
PM_API void pm_thread_idle(void);

/* From now on one of malloc's requests in `rate` bytes (1024 or more; 0: 32 KiB) is sampled: `poolmalloc who PID` shows which
 * call stacks hold what was allocated since. 0, or -1 with errno ENOTSUP where malloc is not poolmalloc's. Any thread; O(1). */
PM_API int pm_who_start(size_t rate);
PM_API void pm_who_stop(void);

/* ---- Explicit pools: blocks of one size ----
 * None of these functions, nor those of arenas, may be called from a signal handler. The hardened build, and POOLMALLOC_CHECK=1,
 * report and abort when they are given a block that is not in use, a pool or arena that has ended, or a void mark. */

/* How many threads use a pool at once.
 *   THREADS  any; each keeps some blocks at hand and meets the others once in a few dozen calls. max_blocks and high_water
 *            count the blocks at hand too, so an allocation may fail while other threads have blocks at hand.
 *   LOCKED   any, one after the other under a lock: gives out exactly max_blocks, whatever the threads.
 *   NONE     one at a time, as the caller sees to: the fastest. Exact as LOCKED. */
typedef enum { PM_SHARING_THREADS, PM_SHARING_LOCKED, PM_SHARING_NONE } pm_sharing;

/* What an allocation does when no block is free.
 *   GROW     takes more memory, up to max_blocks; then NULL with errno ENOMEM.
 *   FORWARD  the same, but beyond max_blocks, or where memory is out, the block comes from malloc. It is the caller's like
 *            any other and goes back by pm_pool_free, but the pool does not know it: reset and destroy leave it alone.
 *   FAIL     never grows beyond max_blocks, or, where that is 0, beyond initial_blocks: NULL with ENOMEM. */
typedef enum { PM_OVERFLOW_GROW, PM_OVERFLOW_FORWARD, PM_OVERFLOW_FAIL } pm_overflow;

typedef struct pm_pool pm_pool;

/* Fields left zero take their defaults. */
typedef struct pm_pool_options {
    size_t struct_size;            /* sizeof(pm_pool_options): older callers keep working */
    const char *name PM_ZERO;      /* copied, cut at 31 bytes; shown in statistics. NULL: "pool" */
    size_t block_size PM_ZERO;     /* bytes, 1 to 65536; rounded up to 16, then to a multiple of block_align */
    size_t block_align PM_ZERO;    /* a power of two to 4096; below 8 it is 8, 0: 16. With 8, blocks lie on multiples of 8 */
    size_t initial_blocks PM_ZERO; /* made ready by pm_pool_create */
    size_t max_blocks PM_ZERO;     /* 0: no maximum */
    pm_sharing sharing PM_ZERO;
    pm_overflow overflow PM_ZERO;
    size_t high_water PM_ZERO;     /* blocks in use at which on_high_water is called, at most max_blocks; 0: never */
    /* Called once for each time that the use rises to high_water, in the thread that allocates, with no lock held: it may
     * use the pool. */
    void (*on_high_water)(pm_pool *, void *context) PM_ZERO;
    void *context PM_ZERO;
    /* The blocks lie in the caller's memory, and there only: see pm_pool_extend for more of it. THREADS becomes LOCKED;
     * no initial_blocks, and no GROW beyond it. free() does not know these blocks, and pm_pool_of does not either. */
    void *buffer PM_ZERO;
    size_t buffer_bytes PM_ZERO;
    size_t grow_blocks PM_ZERO;    /* by so many it grows, in whole slabs; 0: a slab of 128 KiB at a time */
    bool report_leaks PM_ZERO;     /* pm_pool_destroy says on stderr how many blocks are still in use, if any are */
} pm_pool_options;

typedef struct pm_pool_stats {
    size_t struct_size;  /* in: sizeof(pm_pool_stats) */
    size_t block_size;   /* bytes, as rounded */
    size_t capacity;     /* the maximum, or, where there is none, the blocks that the pool's slabs have room for */
    size_t used;         /* blocks in the program's hands; exact when no other thread is inside a call on this pool */
    size_t free;         /* capacity - used */
    size_t high_water;   /* the most in use so far, or since pm_pool_high_water_reset; THREADS: blocks at hand count */
    size_t failures;     /* allocations that returned NULL, or fewer than asked for */
    size_t forwarded;    /* blocks that came from malloc */
    size_t block_align;  /* bytes, as rounded */
} pm_pool_stats;

/* A pool, or NULL with errno EINVAL (NULL, a struct_size below that of block_size's end, a size, alignment or policy that
 * does not exist, a maximum below initial_blocks or high_water, a buffer without room for a block) or ENOMEM. O(initial blocks). */
PM_API pm_pool *pm_pool_create(const pm_pool_options *options);
/* A block, aligned as asked for, or NULL with errno ENOMEM (EINVAL: pool is NULL). O(1). */
PM_API void *pm_pool_alloc(pm_pool *pool);
/* The same, all of its bytes zero. O(block size). */
PM_API void *pm_pool_zalloc(pm_pool *pool);
/* A pool over a buffer gets more of the caller's memory. 0, or -1 with errno EINVAL (no such pool, or no room for a block).
 * O(1). */
PM_API int pm_pool_extend(pm_pool *pool, void *buffer, size_t bytes);
/* Gives a block back, in any thread (NONE: one at a time). NULL is fine. O(1). Under the interposer free() does it
 * too. */
PM_API void pm_pool_free(pm_pool *pool, void *block);
/* Up to n blocks; returns how many, with errno ENOMEM when fewer. O(n). */
PM_API size_t pm_pool_alloc_bulk(pm_pool *pool, void **blocks, size_t n);
/* n blocks, or NULLs; the array is used to sort them. O(n). */
PM_API void pm_pool_free_bulk(pm_pool *pool, void **blocks, size_t n);
/* All blocks are free again; the memory stays with the pool. No thread may be inside a call on it. O(slabs + heaps). */
PM_API void pm_pool_reset(pm_pool *pool);
/* Ends the pool: its memory may serve others at once. No thread may be inside a call on it. NULL is fine. With
 * report_leaks, or POOLMALLOC_VERBOSE=1, blocks still in use are reported by count. O(slabs + heaps). */
PM_API void pm_pool_destroy(pm_pool *pool);
/* Whether p points into memory of this pool. O(1), over buffers O(buffers). */
PM_API bool pm_pool_owns(const pm_pool *pool, const void *p);
/* The pool whose memory p points into, or NULL. O(1). */
PM_API pm_pool *pm_pool_of(const void *p);
/* Calls `each` for every block in use. No other thread may use the pool meanwhile; `each` may free the block that it is
 * given, and others, may allocate, and may leave by an exception or longjmp. O(slabs of all pools + heaps + blocks). */
PM_API void pm_pool_visit(pm_pool *pool, void (*each)(void *block, void *context), void *context);
/* Fills the first struct_size bytes. O(heaps). */
PM_API void pm_pool_stats_get(const pm_pool *pool, pm_pool_stats *stats);
/* The high-water mark starts again from what is in use now. */
PM_API void pm_pool_high_water_reset(pm_pool *pool);
/* Empty slabs beyond initial_blocks go back; returns their bytes. The calling thread's blocks at hand, and no other's, are
 * given back first. O(slabs). */
PM_API size_t pm_pool_trim(pm_pool *pool);

/* ---- Their short ways, inline ----
 * A pool of NONE begins with its hand. An empty one says nothing: the library knows more. That of all other pools is always
 * empty, and so is every hand in the hardened build, with POOLMALLOC_CHECK=1, and of pools that call back at high_water. */
typedef struct pm_pool_hand {
    void *free;   /* blocks, linked by their first words */
    int32_t room; /* for so many more */
} pm_pool_hand;

#if defined(__GNUC__)
/* What lies so many bytes from pm_thread is the calling thread's hand of a pool of THREADS, or, for any other, and NULL, one
 * that is empty for ever. Less than 64 KiB. */
PM_API size_t pm_pool_hand_of_thread(const pm_pool *pool);
PM_API extern __thread char *pm_thread __attribute__((tls_model("initial-exec")));

typedef void *__attribute__((may_alias)) pm_pool_link;

#define PM_INLINE extern __inline__ __attribute__((gnu_inline, always_inline))

PM_INLINE void *pm_hand_take(pm_pool_hand *hand)
{
    void *pm_block = hand->free;
    if (__builtin_expect(pm_block != NULL, 1)) {
        hand->free = *(pm_pool_link *)pm_block;
        hand->room++;
    }
    return pm_block;
}
/* False: no room, or no block. The link stands before the head moves: the child of a fork, wherever it falls, sees a proper list. */
PM_INLINE bool pm_hand_give(pm_pool_hand *hand, void *pm_block)
{
    int32_t pm_room = hand->room - 1;
    if (__builtin_expect(pm_room < 0 || !pm_block, 0))
        return false;
    hand->room = pm_room;
    *(pm_pool_link *)pm_block = hand->free;
    __atomic_signal_fence(__ATOMIC_RELEASE);
    hand->free = pm_block;
    return true;
}

/* As the functions of these names do it, which are called where nothing is at hand. POOLMALLOC_NO_INLINE: always. */
#if defined(__OPTIMIZE__) && !defined(POOLMALLOC_NO_INLINE)
PM_API void *pm_pool_alloc_called(pm_pool *pool) __asm__("pm_pool_alloc");
PM_API void pm_pool_free_called(pm_pool *pool, void *pm_block) __asm__("pm_pool_free");

PM_INLINE void *pm_pool_alloc(pm_pool *pool)
{
    void *pm_block = pool ? pm_hand_take((pm_pool_hand *)pool) : NULL;
    return pm_block ? pm_block : pm_pool_alloc_called(pool);
}
PM_INLINE void pm_pool_free(pm_pool *pool, void *pm_block)
{
    if (!pool || !pm_hand_give((pm_pool_hand *)pool, pm_block))
        pm_pool_free_called(pool, pm_block);
}
#endif
#endif

/* ---- Arenas: allocate, and give all of it back at once ---- */

/* One thread at a time. */
typedef struct pm_arena pm_arena;

/* A place in an arena, for pm_arena_rewind. */
typedef struct pm_arena_mark {
    void *chunk, *at;
} pm_arena_mark;

/* The first fields of every arena: what lies between them is free. For inline allocation, as poolmalloc.hpp does it. */
typedef struct pm_arena_room {
    char *at, *end;
} pm_arena_room;

/* Fields left zero take their defaults. With a buffer only bytes may be set besides. */
typedef struct pm_arena_options {
    size_t struct_size;             /* sizeof(pm_arena_options): older callers keep working */
    void *buffer PM_ZERO;           /* as pm_arena_create's, and so is bytes */
    size_t bytes PM_ZERO;
    size_t limit PM_ZERO;           /* the most bytes that it takes from where its memory comes from; 0: no limit */
    size_t chunk_bytes PM_ZERO;     /* by so many it grows, or more where one request needs them; 0: 128 KiB */
    pm_arena *parent PM_ZERO;       /* of a sub-arena: its memory lies there. It ends, at the latest, when its parent ends, is
                                     * reset, or rewound to a mark from before it, and must not be used afterwards */
    /* Where memory comes from and goes to, instead of slabs and malloc: a multiple of 16, or NULL: there is none left. */
    void *(*take)(size_t bytes, void *context) PM_ZERO;
    void (*give)(void *memory, size_t bytes, void *context) PM_ZERO; /* NULL: it is not wanted back */
    void *context PM_ZERO;
} pm_arena_options;

typedef struct pm_arena_stats {
    size_t struct_size; /* in: sizeof(pm_arena_stats) */
    size_t used;        /* bytes allocated, and skipped for alignment and at the end of chunks */
    size_t held;        /* bytes of its memory, used or not */
    size_t limit;       /* as in the options */
} pm_arena_stats;

/* An arena over the caller's buffer, which it never outgrows (its own record takes 64 bytes of it, where it is large
 * enough), or, without a buffer, a growing one, with `bytes` made ready. NULL with errno EINVAL (a buffer of 0 bytes, or
 * absurd sizes) or ENOMEM. */
PM_API pm_arena *pm_arena_create(void *buffer, size_t bytes);
/* The same by options. EINVAL too for NULL, a parent and `take` at once, and what a buffer cannot have. */
PM_API pm_arena *pm_arena_create_with(const pm_arena_options *options);
/* `size` bytes at a multiple of `align` (a power of two to 2 MiB; 0: 16), or NULL with errno ENOMEM or EINVAL. Size 0
 * gives a pointer that may equal the next one. O(1) but for new memory. With the hardened library or POOLMALLOC_CHECK an
 * allocation of an arena that grows takes 24 bytes more, a canary that rewind, reset and destroy look at: O(allocations). */
PM_API void *pm_arena_alloc(pm_arena *arena, size_t size, size_t align);
/* A copy of a string, and text as printf would print it; or NULL with errno ENOMEM or EINVAL (NULL). O(length). */
PM_API char *pm_arena_strdup(pm_arena *arena, const char *text);
PM_API char *pm_arena_printf(pm_arena *arena, const char *format, ...) PM_PRINTF(2, 3);
PM_API char *pm_arena_vprintf(pm_arena *arena, const char *format, va_list arguments) PM_PRINTF(2, 0);
/* `run` is called before what is allocated now is given back: by rewind to a mark saved before, reset or destroy; the last
 * told is the first called, and none may allocate from this arena. 0, or -1 with errno ENOMEM or EINVAL (NULL). Takes 32
 * bytes of the arena. O(1). */
PM_API int pm_arena_defer(pm_arena *arena, void (*run)(void *context), void *context);
PM_API pm_arena_mark pm_arena_save(const pm_arena *arena);
/* Gives back all that was allocated since the mark was saved; marks saved since then are void. The memory stays, for
 * requests that fit into it: chunks that are too small for one give way to a larger. O(1) but for deferred calls. */
PM_API void pm_arena_rewind(pm_arena *arena, pm_arena_mark mark);
/* Gives back all; the memory stays with the arena. O(1) but for deferred calls. */
PM_API void pm_arena_reset(pm_arena *arena);
/* NULL is fine. O(chunks), and deferred calls. */
PM_API void pm_arena_destroy(pm_arena *arena);
/* Fills the first struct_size bytes. O(1). */
PM_API void pm_arena_stats_get(const pm_arena *arena, pm_arena_stats *stats);

#if defined(__GNUC__)
typedef struct pm_arena_scope {
    pm_arena *arena;
    pm_arena_mark mark;
} pm_arena_scope;

static inline pm_arena_scope pm_arena_scope_begin(pm_arena *arena)
{
    pm_arena_scope scope = {arena, pm_arena_save(arena)};
    return scope;
}
static inline void pm_arena_scope_end(pm_arena_scope *scope) { pm_arena_rewind(scope->arena, scope->mark); }
static inline void pm_pool_end(pm_pool **pool) { pm_pool_destroy(*pool); }
static inline void pm_arena_end(pm_arena **arena) { pm_arena_destroy(*arena); }
/* PM_POOL_AUTO pm_pool *nodes = pm_pool_create(&options);  destroyed where the scope of `nodes` ends. */
#define PM_POOL_AUTO __attribute__((cleanup(pm_pool_end)))
#define PM_ARENA_AUTO __attribute__((cleanup(pm_arena_end)))
/* PM_ARENA_SCOPE(arena);  what is allocated from here on is given back where the scope that this stands in ends. */
#define PM_ARENA_SCOPE(arena) PM_ARENA_SCOPE_NAMED(arena, __LINE__)
#define PM_ARENA_SCOPE_NAMED(arena, line) PM_ARENA_SCOPE_IN(arena, line)
#define PM_ARENA_SCOPE_IN(arena, line) \
    __attribute__((cleanup(pm_arena_scope_end), unused)) pm_arena_scope pm_arena_scope_##line = pm_arena_scope_begin(arena)
#endif

#ifdef __cplusplus
}
#endif

#endif
