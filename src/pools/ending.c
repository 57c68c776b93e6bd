/* ending.c: see ending.h. */
#include "pools/ending.h"

#include "pools/depot.h"
#include "pools/misuse.h"
#include "pools/registry.h"
#include "pools/slab.h"

#include <string.h>

#define SLABS 64     /* that are looked at */
#define LINKS 256    /* of a chain that are followed, at most */
#define BEFORE 32    /* bytes before a slab's first block */
#define BEHIND 64    /* bytes of the first block that was never handed out */
#define WRITTEN "written to after it was freed"
#define LED "a link in a free block leads there, which was written to"
#define NOWHERE "no block begins there: given back all the same, or a link in a free block was written to"

static os_lock looking;                           /* guards marks; tried only: two threads may be in exit() */
static uint64_t marks[SLAB_BLOCKS_MAX / 64] RARE; /* of one slab: blocks that were met */

static COLD void __attribute__((noreturn)) stop(const slab *s, const void *p, const char *what, block_state state)
{
    misuse m = {.call = CALL_EXIT, .pointer = p, .what = what, .state = state};
    if (s) {
        const size_class *c = &pm_classes[s->klass];
        size_t offset = (size_t)((const char *)p - slab_first(s, c));
        m.block = offset < SLAB_SIZE ? (const char *)p - offset % c->size : p;
        m.bytes = c->size;
    }
    misuse_abort(&m);
}

static COLD void __attribute__((noreturn)) link_stop(const block *from, const block *to)
{
    stop(from ? slab_of(from) : NULL, from ? from : to, from ? WRITTEN : LED, from ? BLOCK_FREED : BLOCK_UNKNOWN);
}

/* p is said to be a free block of s. */
static size_t number_checked(const slab *s, const void *p)
{
    const size_class *c = &pm_classes[s->klass];
    size_t offset = (size_t)((const char *)p - slab_first(s, c)), number = offset * c->inverse >> 32;
    if (offset >= SLAB_SIZE || number >= c->per_slab || number * c->size != offset)
        stop(s, p, NOWHERE, BLOCK_UNKNOWN);
    if (number >= s->high)
        stop(s, p, "given back, though never handed out", BLOCK_NEVER);
    if (slab_bits(s, c)[number / 64] >> number % 64 & 1)
        stop(s, p, "double free", BLOCK_FREED);
    return number;
}

static void marks_clear(const slab *s) { memset(marks, 0, (pm_classes[s->klass].per_slab + 63) / 64 * sizeof *marks); }

static void mark(const slab *s, const void *p)
{
    size_t number = number_checked(s, p);
    uint64_t bit = (uint64_t)1 << number % 64;
    if (marks[number / 64] & bit)
        stop(s, p, "double free", BLOCK_FREED);
    marks[number / 64] |= bit;
}

/* A chain of blocks of s, which ends with NULL. */
static void chain_check(const slab *s, const block *p)
{
    const block *from = NULL;
    for (size_t n = 0; p && n < LINKS; n++, from = p, p = p->next) {
        if (!region_holds(p) || slab_of(p) != s)
            link_stop(from, p);
        mark(s, p);
    }
}

static void bin_mark(const bin *b, const slab *s)
{
    size_t n = 0;
    for (const block *p = b->free; p && n < LINKS; p = p->next, n++)
        if (slab_of(p) == s)
            mark(s, p);
}

static const block *run_of(heap *h, const slab *s)
{
    for (const block_run *r = runs_of(h, s), *end = r + RUN_WAYS; r < end; r++)
        if (r->slab == s)
            return r->first;
    return NULL;
}

/* Free blocks in whatever place: each in one. `settled`: nobody changes the chain. */
static void places_check(heap *mine, const slab *s, bool settled)
{
    const block *chain = settled ? s->chain : NULL, *run = run_of(mine, s);
    const block *remote = remote_first(__atomic_load_n(&s->remote, __ATOMIC_ACQUIRE));
    if (!chain && !remote && !run)
        return;
    marks_clear(s);
    chain_check(s, chain);
    chain_check(s, remote);
    chain_check(s, run);
    if (LOAD(&s->home) == mine)
        bin_mark(s->bin, s);
}

/* ---- what nobody was given ---- */

static bool all_are(const char *p, size_t bytes, uint64_t value)
{
    uint64_t differs = 0, word;
    for (size_t i = 0; i < bytes; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        differs |= word ^ value;
    }
    return differs == 0;
}

static void behind_check(const slab *s)
{
    const size_class *c = &pm_classes[s->klass];
    const char *p = slab_first(s, c) + (size_t)s->high * c->size;
    if (s->state == SLAB_ZEROED && s->high < c->per_slab && !all_are(p, size_min(c->size, BEHIND), 0))
        stop(s, p, "written to, though never handed out: past the end of the block before it", BLOCK_NEVER);
}

/* Whether the end of slab s reads as zero. */
static bool ends_unused(const slab *s, const heap *mine)
{
    const size_class *c = &pm_classes[s->klass];
    if (LOAD(&s->home) != mine)
        return LOAD(&s->state) == SLAB_CLEAN;
    return s->state == SLAB_ZEROED && (s->high < c->per_slab || slab_offset(s, c, c->per_slab) + BEFORE <= SLAB_ROOM);
}

/* Before the first block lie its slab's colour, or bits; or the slab before it, or the first one's bits. */
static bool before_holds(const slab *s, const heap *mine)
{
    const size_class *c = &pm_classes[s->klass];
    const char *first = slab_first(s, c), *p = first - BEFORE;
    if (c->head)
        return s->high > c->per_slab - 4 * 64 || s->state != SLAB_ZEROED ||
               (all_are(p, BEFORE - sizeof(uint64_t), UINT64_MAX) && all_are(first - sizeof(uint64_t), sizeof(uint64_t), 0));
    if (p >= slab_begin(s))
        return s->state != SLAB_ZEROED || all_are(p, BEFORE, 0);
    if (slab_index(s) > 0)
        return !ends_unused(s - 1, mine) || all_are(p, BEFORE, 0) || !ends_unused(s - 1, mine);
    return c->per_slab > (SLAB_BITS_BYTES / 8 - 4) * 64 || all_are(p, BEFORE, 0);
}

/* ---- all ---- */

static void slab_look(heap *mine, const slab *s, const heap *home)
{
    if (LOAD(&s->home) != home || !slab_in_use(s))
        return;
    places_check(mine, s, home == mine || home->state == HEAP_IDLE);
    behind_check(s);
    if (home == mine && !before_holds(s, mine))
        stop(s, slab_first(s, &pm_classes[s->klass]), "written before its beginning", BLOCK_UNKNOWN);
}

/* Another heap's, with the registry lock. */
static void slab_look_there(heap *mine, const slab *s, heap *home)
{
    if (!heap_lock_try(home))
        return;
    slab_look(mine, s, home);
    heap_unlock(home);
}

static void slabs_look(heap *mine)
{
    bool others = os_lock_try(&pm_registry.lock);
    for (size_t i = 0, n = size_min(LOAD(&pm_depot.fresh), SLABS); i < n; i++) {
        const slab *s = &pm_region.slabs[i];
        heap *home = LOAD(&s->home);
        if (home == mine)
            slab_look(mine, s, home);
        else if (others && home && heap_is_real(home)) /* NULL: it is being taken for the first time */
            slab_look_there(mine, s, home);
    }
    if (others)
        os_lock_give(&pm_registry.lock);
}

/* Empty ones that the heap has kept: what came home last is still linked as it was. A learned class may be of another size by now. */
static void spares_look(const heap *h)
{
    int n = 0;
    for (const slab *s = h->spare; s && n < SLABS; s = s->next, n++)
        if (s->klass < pm_class_fixed && s->state == SLAB_USED && s->chain) {
            marks_clear(s);
            chain_check(s, s->chain);
        }
}

static void bin_look(const bin *b, const heap *h)
{
    const block *from = NULL;
    size_t n = 0;
    for (const block *p = b->free; p; from = p, p = p->next) {
        const slab *s = region_holds(p) ? slab_of(p) : NULL;
        if (!s || LOAD(&s->home) != h || s->klass != b->klass)
            link_stop(from, p);
        number_checked(s, p);
        if (++n > SLAB_BLOCKS_MAX)
            stop(s, p, "double free", BLOCK_FREED);
    }
}

static void all_look(heap *h)
{
    for (unsigned c = 0; c < classes_count(); c++)
        bin_look(&h->bins[c], h);
    slabs_look(h);
    spares_look(h);
}

void ending_check(void)
{
    heap *h = my_heap;
    if (!os_lock_try(&looking))
        return;
    if (heap_is_real(h) && heap_enter(h)) {
        all_look(h);
        heap_leave(h);
    }
    os_lock_give(&looking);
}
