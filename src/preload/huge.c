/* huge.c: See huge.h. */
#include "preload/huge.h"

#include "ground/config.h"
#include "ground/os.h"
#include "pools/kept.h"

#define HUGE_LEAST (4 * MIB)       /* most hold a whole 2 MiB, wherever they begin */
#define LOOKED_AT 64               /* pages before where every request for a block ends */
#define LOOKED_EVERY 4             /* blocks, while they do not have huge pages */
#define FULL_ENOUGH 2
#define NOT_FULL (-16)
#define PROBE_EVERY 8              /* blocks, of those that could have huge pages */

/* Of a doubling. All of it atomic, relaxed. */
typedef struct sizes {
    const void *probe; /* the last block that was not given huge pages, to be looked at when it goes */
    int8_t full;       /* blocks in a row that were, up to FULL_ENOUGH; or NOT_FULL and up */
    uint8_t got, gone;
} sizes;

static sizes doublings[64];

static sizes *sizes_of(size_t usable)
{
    return usable >= HUGE_LEAST && pm_config.hugepages != HUGEPAGES_NEVER ? &doublings[__builtin_clzl(usable)] : NULL;
}

/* All of its pages, so that it stays one mapping, which the C library can move. */
void huge_got(const void *p, size_t usable)
{
    sizes *s = sizes_of(usable);
    if (!s || LOAD(&s->full) < FULL_ENOUGH)
        return;
    bool probe = __atomic_add_fetch(&s->got, 1, __ATOMIC_RELAXED) % PROBE_EVERY == 0;
    if (probe || LOAD(&s->probe) == p)
        STORE(&s->probe, probe ? p : NULL);
    if (probe)
        return;
    uintptr_t begin = (uintptr_t)p & -os_page_size();
    os_huge((void *)begin, round_up((uintptr_t)p + usable - begin, os_page_size()), true);
}

/* No request that was rounded up to this block was for less: see kept_size. */
static bool is_full(const void *p, size_t usable)
{
    size_t page = os_page_size(), bytes = LOOKED_AT * page;
    uintptr_t end = ((uintptr_t)p + usable - (usable < kept_size(KEPT_BINS) ? usable / 9 : 0)) & -page;
    return os_resident((void *)(end - bytes), bytes) >= bytes / 16 * 15;
}

void huge_gone(const void *p, size_t usable)
{
    sizes *s = sizes_of(usable);
    if (!s)
        return;
    int8_t full = LOAD(&s->full);
    bool probe = LOAD(&s->probe) == p;
    if (!probe && (full >= FULL_ENOUGH || __atomic_fetch_add(&s->gone, 1, __ATOMIC_RELAXED) % LOOKED_EVERY != 0))
        return;
    if (probe)
        STORE(&s->probe, NULL);
    if (!is_full(p, usable))
        STORE(&s->full, NOT_FULL);
    else if (full < FULL_ENOUGH)
        STORE(&s->full, (int8_t)(full + 1));
}
