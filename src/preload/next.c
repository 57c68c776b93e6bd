/* next.c: See next.h. */
#include "preload/next.h"

#include "ground/os_malloc.h"
#include "ground/text.h"
#include "pools/bringup.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <string.h>

next_allocator pm_next;

/* The address range of the library that pm_next.malloc is in. */
static uintptr_t library_low, library_high;
static char library_name[64];

/* ---- the boot arena ---- */

_Alignas(16) char boot_arena[BOOT_BYTES] RARE;
static size_t boot_used;

/* Each piece is preceded by its size. */
void *boot_alloc(size_t size)
{
    if (size > BOOT_BYTES)
        return NULL;
    size_t bytes = round_up(size, QUANTUM) + QUANTUM;
    size_t at = __atomic_fetch_add(&boot_used, bytes, __ATOMIC_RELAXED);
    if (at + bytes > BOOT_BYTES)
        return NULL;
    memcpy(boot_arena + at, &size, sizeof size);
    return boot_arena + at + QUANTUM;
}

size_t boot_size(const void *p)
{
    size_t size;
    memcpy(&size, (const char *)p - QUANTUM, sizeof size);
    return round_up(size, QUANTUM);
}

/* ---- finding ---- */

static int library_match(struct dl_phdr_info *info, size_t size, void *address)
{
    (void)size;
    uintptr_t low = UINTPTR_MAX, high = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_LOAD)
            continue;
        uintptr_t from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        low = from < low ? from : low;
        high = size_max(high, from + info->dlpi_phdr[i].p_memsz);
    }
    if ((uintptr_t)address < low || (uintptr_t)address >= high)
        return 0;
    library_low = low;
    library_high = high;
    const char *slash = strrchr(info->dlpi_name, '/');
    name_clean(slash ? slash + 1 : *info->dlpi_name ? info->dlpi_name : "the program", library_name, sizeof library_name);
    return 1;
}

/* NULL also when another library than the next allocator's has it: its blocks would not be the same allocator's. */
void *next_function(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    return (uintptr_t)f >= library_low && (uintptr_t)f < library_high ? f : NULL;
}

/* ---- tuning ---- */

bool pm_next_tuned;

#define TRIMMED_FROM (8 * MIB) /* twice the threshold, as the C library does, or eight times up to this: threads share a heap */

/* Bound at load, since dlsym takes a lock that a fork may find held. */
extern int __libc_mallopt(int, int) __attribute__((weak));

static bool may_tune(void)
{
    uintptr_t f = (uintptr_t)__libc_mallopt;
    return !LOAD(&pm_next_tuned) && f >= library_low && f < library_high;
}

void next_arenas_most(unsigned n)
{
    if (may_tune())
        __libc_mallopt(M_ARENA_MAX, (int)n);
}

void next_map_from(size_t bytes)
{
    if (!may_tune())
        return;
    __libc_mallopt(M_MMAP_THRESHOLD, (int)bytes);
    __libc_mallopt(M_TRIM_THRESHOLD, (int)size_max(2 * bytes, size_min(8 * bytes, TRIMMED_FROM)));
}

/* ---- stand-ins for what a library lacks ---- */

static void *calloc_by_malloc(size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    void *p = pm_next.malloc(bytes);
    return p ? memset(p, 0, bytes) : NULL;
}

static void *memalign_missing(size_t align, size_t size)
{
    if (align <= QUANTUM)
        return pm_next.malloc(size);
    errno = ENOMEM;
    return NULL;
}

static int (*posix_memalign_of_next)(void **, size_t, size_t);

static void *memalign_by_posix(size_t align, size_t size)
{
    void *p = NULL;
    int error = posix_memalign_of_next(&p, size_max(align, sizeof(void *)), size);
    if (error)
        errno = error;
    return p;
}

typedef void *memalign_like(size_t, size_t);

/* aligned_alloc last: some want the size to be a multiple of the alignment. */
static memalign_like *memalign_stand_in(void)
{
    memalign_like *aligned;
    *(void **)&posix_memalign_of_next = next_function("posix_memalign");
    if (posix_memalign_of_next)
        return memalign_by_posix;
    *(void **)&aligned = next_function("aligned_alloc");
    return aligned ? aligned : memalign_missing;
}

/* The C library's malloc gets ready in its first call, unlocked: without us that is the loader's. With us it could be two threads' at
 * once, who then end up with one arena, counted once; the second one's end aborts. What it refuses makes it ready, and does nothing else;
 * others, which may abort there, are made ready by a mallopt of 0. */
static void next_make_ready(const next_allocator *n)
{
    int (*tune)(int, int) = NULL;
    if (strncmp(library_name, "libc.so", 7) == 0)
        n->malloc(SIZE_MAX);
    else
        *(void **)&tune = next_function("mallopt");
    if (tune)
        tune(0, 0);
}

/* dlsym gives object pointers; POSIX lets them be functions. */
#define FIND(f) (*(void **)&n->f = next_function(#f))

bool next_find(bool make_ready)
{
    next_allocator found = {.malloc = NULL}, *n = &found;
    void *first = dlsym(RTLD_NEXT, "malloc");
    if (!first || !dl_iterate_phdr(library_match, first))
        return false;
    *(void **)&n->malloc = first;
    if (!FIND(free) || !FIND(realloc))
        return false;
    if (!FIND(calloc))
        n->calloc = calloc_by_malloc;
    *(void **)&n->memalign = next_function(OS_MEMALIGN);
    if (!n->memalign)
        n->memalign = memalign_stand_in();
    FIND(malloc_usable_size);
    if (make_ready)
        next_make_ready(n);
    pm_next = found;
    pm_next_name = library_name;
    return true;
}
