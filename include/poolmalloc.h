/* poolmalloc.h: the C API of poolmalloc. MIT license.
 *
 * Every function may be called from any thread at any time unless it says otherwise. Sizes are bytes. */
#ifndef POOLMALLOC_H
#define POOLMALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PM_API __attribute__((visibility("default")))
#else
#define PM_API
#endif

/* The version, "major.minor.patch". */
PM_API const char *pm_version(void);

/* ---- The pools behind malloc, seen from inside ---- */

#define PM_STATS_ROWS 128

typedef struct pm_stats_row {
    char name[32];                /* "malloc-64", or the name given to pm_pool_create */
    size_t block_size;            /* bytes */
    size_t slabs;                 /* slabs that hold blocks of it */
    size_t capacity;              /* blocks that these slabs, and the waiting ones, have room for */
    size_t used;                  /* blocks in the program's hands */
    size_t free;                  /* capacity - used */
    size_t resident_bytes;        /* bytes of these slabs that are in memory */
    size_t waiting_slabs;         /* pre-allocated slabs not in use yet */
    size_t allocations, peak;     /* exact, with POOLMALLOC_STATS=full; else 0 */
} pm_stats_row;

typedef struct pm_stats {
    size_t struct_size;      /* in: sizeof(pm_stats), so that older callers keep working */
    size_t reserved_bytes;   /* address space mapped */
    size_t committed_bytes;  /* slabs that hold pages, records and heaps */
    size_t resident_bytes;   /* of the slabs, what is in memory */
    size_t used_bytes;       /* blocks in the program's hands */
    size_t forwarded_calls;  /* allocations handed to the next allocator: too large, misaligned, or for want of memory */
    size_t forwarded_small_calls; /* those of them that a pool's block would have been large enough for */
    size_t pool_calls;       /* allocations served by pools; exact with POOLMALLOC_STATS=full, else 0 */
    size_t heaps, idle_heaps; /* heaps made; heaps without a thread */
    size_t spare_slabs;      /* empty slabs kept by heaps */
    size_t empty_slabs;      /* empty slabs that hold pages, kept by no heap */
    size_t purges;           /* slabs whose pages went back to the system, so far */
    size_t limit_hits;       /* times that POOLMALLOC_LIMIT refused a slab */
    size_t remote_frees, remote_messages; /* blocks sent home to another thread's heap; atomic exchanges for them */
    size_t pools;            /* rows filled; pools beyond PM_STATS_ROWS are in the totals only */
    pm_stats_row row[PM_STATS_ROWS];
} pm_stats;

typedef enum { PM_FORMAT_TEXT, PM_FORMAT_JSON, PM_FORMAT_PROMETHEUS } pm_format;

/* Fills the first stats->struct_size bytes. Exact for a process whose other threads do not allocate meanwhile, within a
 * few blocks a thread otherwise. 0, or -1 with errno EINVAL (struct_size below 8). O(slabs + heaps). */
PM_API int pm_stats_get(pm_stats *stats);
/* Writes the same to a file descriptor. 0, or -1 with errno EINVAL (no such format) or EIO. Allocates nothing. */
PM_API int pm_stats_print(int fd, pm_format format);
/* Gives the pages of every empty slab back to the system, of all threads that are not inside an allocation.
 * Returns the bytes given back. O(slabs + heaps + blocks on their way between threads). */
PM_API size_t pm_trim(void);
/* Re-derives every counter of the pools; aborts with one line at the first breach. For tests and debuggers. */
PM_API void pm_check(void);
/* The calling thread will not allocate for a while: what it keeps at hand goes back where other threads can use it. */
PM_API void pm_thread_idle(void);

#ifdef __cplusplus
}
#endif

#endif
