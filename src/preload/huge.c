/* huge.c: See huge.h. */
#include "preload/huge.h"

#include "ground/config.h"
#include "ground/os.h"
#include "pools/kept.h"

#define HUGE_PAGE (2 * MIB)
#define HUGE_LEAST (2 * HUGE_PAGE) /* most hold one, wherever they begin */
#define LOOKED_AT 64               /* pages before a request's end */
#define FULL_ENOUGH 2
#define LOOKED_EVERY 4             /* blocks, while they are not */

static uint8_t full[64]; /* blocks in a row that were, of each doubling; atomic, relaxed */

static uint8_t *doubling(size_t usable)
{
    return usable >= HUGE_LEAST && pm_config.hugepages != HUGEPAGES_NEVER ? &full[__builtin_clzl(usable)] : NULL;
}

/* Where pages of a block end that every request for it reaches, if it was rounded up to it: see kept_size. */
static uintptr_t reached(const void *p, size_t usable)
{
    return ((uintptr_t)p + usable - (usable < kept_size(KEPT_BINS) ? usable / 9 : 0)) & -os_page_size();
}

/* Below it huge pages, above it enough others to look at. */
static uintptr_t huge_end(uintptr_t end) { return (end - LOOKED_AT * os_page_size()) & -HUGE_PAGE; }

void huge_got(void *p, size_t usable)
{
    const uint8_t *f = doubling(usable);
    uintptr_t begin = round_up((uintptr_t)p, HUGE_PAGE), end = huge_end(reached(p, usable));
    if (f && LOAD(f) >= FULL_ENOUGH && begin < end)
        os_huge((void *)begin, end - begin, true);
}

void huge_gone(const void *p, size_t usable)
{
    static uint8_t turn;
    uint8_t *f = doubling(usable), n = f ? LOAD(f) : 0;
    if (!f || (n == 0 && __atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED) % LOOKED_EVERY != 0))
        return;
    size_t bytes = LOOKED_AT * os_page_size();
    bool was = os_resident((void *)(reached(p, usable) - bytes), bytes) >= bytes / 16 * 15;
    if (!was || n < FULL_ENOUGH)
        STORE(f, was ? n + 1 : 0);
}
