/* learn.c: see learn.h.
 *
 * Each slab remembers the size of the last request that was seen to be served from it. So how many slabs remember which size says
 * what the memory held now is used for, whatever the traffic is.
 *
 * A number is given to another size only upwards, and only while no slab has it: whoever has read an old entry of pm_bin_offset,
 * however long ago, gets a block that is large enough. */
#include "pools/learn.h"

#include "ground/os.h"
#include "pools/kept.h"
#include "pools/seams.h"

#define CLASS_CLOSED ((uint32_t)1 << 31)
#define POOL_COST (64 * KIB)       /* for each heap: half-full slabs, and blocks that came and went: measured on random sizes */
#define SEEN_LEAST 8                /* slabs that an opinion rests on */
#define SEEN_FROM 4                 /* slabs of a class, of which the first are no sample: small programs touch no page for them */
#define SEEN_SPREAD 32              /* … on sizes that lie apart */
#define SIZES_TELL 4                /* sizes of 16 bytes' steps up to a further one: in fewer lies much of anything */
#define GROWTH_LEAST 12              /* slabs opened, and a quarter of those there are, between two looks at a class */
#define VAIN_MOST 5                 /* looks: then 32 times as many slabs are opened between two */
#define DEARER_EVERY 16             /* changes after which the next ones must save twice as much */

learner pm_learn;
uint32_t pm_learn_held[LEARN_SIZES] RARE;

void learn_init(const size_list *sizes)
{
    pm_learn.on = sizes->learn && !PM_HARDENED && !pm_config.stats.full && !pm_config.profile[0];
    for (uint32_t c = 1; c < sizes->length && pm_learn.on; c++)
        pm_learn.lowest[c] = (uint16_t)(sizes->at[c - 1].size / QUANTUM + 1);
}

/* ---- what slabs hold ---- */

static void held_add(size_t at, int n)
{
    uint32_t held = LOAD(&pm_learn_held[at]);
    if (n > 0 || held > 0)
        STORE(&pm_learn_held[at], held + (uint32_t)n);
}

static unsigned class_at(size_t at) { return LOAD(&LOAD(&pm_sizes)[at]) / BIN_SIZE; }

/* Since a smaller class was put between, what a slab of the old one remembers counts no more. */
static void held_forget(slab *s)
{
    if (s->asked && class_at(s->asked) == s->klass)
        held_add(s->asked, -1);
    s->asked = 0;
}

/* Who has closed it holds the lock. */
static COLD void open_wait(unsigned klass)
{
    do {
        __atomic_fetch_sub(&pm_learn.slabs[klass], 1, __ATOMIC_RELAXED);
        os_lock_take(&pm_learn.lock);
        os_lock_give(&pm_learn.lock);
    } while (__atomic_fetch_add(&pm_learn.slabs[klass], 1, __ATOMIC_ACQUIRE) & CLASS_CLOSED);
}

void learn_open(slab *s, unsigned klass)
{
    s->asked = 0;
    if (!pm_learn.on)
        return;
    STORE(&pm_learn.opened[klass], LOAD(&pm_learn.opened[klass]) + 1);
    if (UNLIKELY(__atomic_fetch_add(&pm_learn.slabs[klass], 1, __ATOMIC_ACQUIRE) & CLASS_CLOSED))
        open_wait(klass);
}

void learn_close(slab *s)
{
    if (!pm_learn.on)
        return;
    held_forget(s);
    __atomic_fetch_sub(&pm_learn.slabs[s->klass], 1, __ATOMIC_RELEASE);
}

/* ---- classes ---- */

static void offsets_lead(size_t from, size_t to, unsigned klass)
{
    for (; from <= to; from++)
        __atomic_store_n(&pm_sizes[from], (uint16_t)(klass * BIN_SIZE), __ATOMIC_RELEASE);
}

/* The largest learned class up to `size` that has no slab gives its number back, and what it served goes to the next larger one. */
static unsigned class_vacate(size_t size)
{
    unsigned found = CLASS_NONE;
    uint32_t none = 0;
    for (unsigned c = pm_class_fixed; c < pm_class_count; c++)
        if (LOAD(&pm_learn.slabs[c]) == 0 && pm_classes[c].size <= size &&
            (found == CLASS_NONE || pm_classes[c].size > pm_classes[found].size))
            found = c;
    if (found == CLASS_NONE ||
        !__atomic_compare_exchange_n(&pm_learn.slabs[found], &none, CLASS_CLOSED, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return CLASS_NONE;
    size_t at = pm_classes[found].size / QUANTUM;
    PROBE(unlearn, found, at * QUANTUM);
    unsigned above = class_at(at + 1);
    offsets_lead(pm_learn.lowest[found], at, above);
    pm_learn.lowest[above] = pm_learn.lowest[found];
    return found;
}

static unsigned class_obtain(size_t size)
{
    unsigned count = pm_class_count;
    if (count == CLASS_MALLOC_MAX)
        return class_vacate(size);
    STORE(&pm_learn.slabs[count], CLASS_CLOSED);
    return count;
}

/* Requests of at most at * 16 bytes that went to klass get a class of their own. */
static void class_insert(size_t at, unsigned klass)
{
    unsigned c = class_obtain(at * QUANTUM);
    if (c == CLASS_NONE)
        return;
    class_shape(&pm_classes[c], at * QUANTUM, QUANTUM);
    class_align_learned(c);
    __atomic_fetch_sub(&pm_learn.slabs[c], CLASS_CLOSED, __ATOMIC_RELEASE);
    __atomic_store_n(&pm_class_count, (uint32_t)size_max(c + 1, pm_class_count), __ATOMIC_RELEASE);
    for (size_t i = pm_learn.lowest[klass]; i <= at; i++)
        STORE(&pm_learn_held[i], 0);
    offsets_lead(pm_learn.lowest[klass], at, c);
    pm_learn.lowest[c] = pm_learn.lowest[klass];
    pm_learn.lowest[klass] = (uint16_t)(at + 1);
    pm_learn.before[klass] = LOAD(&pm_learn.slabs[klass]);
    pm_learn.before[c] = 0;
    pm_learn.changes++;
    PROBE(learn, c, at * QUANTUM);
}

/* ---- what a further size would save ---- */

typedef struct candidate {
    size_t at, saved; /* at * 16 bytes; bytes of the blocks held now */
} candidate;

/* With its share of the slab's tail. */
static size_t block_cost(size_t at) { return SLAB_SIZE / (SLAB_SIZE / (at * QUANTUM)); }

/* Most of what would be served there is of that very size, which says something where there are others; or it saves a twelfth. Sizes
 * that lie anywhere gain less by one step more than they lose: the slabs of the old class become emptier, not fewer. */
static bool is_worth_it(size_t same, size_t below, size_t sizes, size_t saved, size_t seen)
{
    return 4 * same >= 3 * (sizes >= SIZES_TELL ? below : seen) || (seen >= SEEN_SPREAD && 12 * saved >= seen * SLAB_SIZE);
}

/* Of the slabs only some were seen: the others hold the same, but for those from before. */
static candidate best_size(unsigned klass)
{
    size_t top = pm_classes[klass].size / QUANTUM, cost = block_cost(top), seen = 0, same = 0, below = 0;
    candidate best = {0, 0};
    for (size_t at = pm_learn.lowest[klass]; at <= top; at++) {
        uint32_t held = LOAD(&pm_learn_held[at]);
        if (!held)
            continue;
        seen += held;
        size_t saved = seen * pm_classes[klass].per_slab * (cost - block_cost(at));
        if (saved > best.saved) {
            best = (candidate){at, saved};
            below = seen;
            same = held;
        }
    }
    if (below < SEEN_LEAST || !is_worth_it(same, below, best.at + 1 - pm_learn.lowest[klass], best.saved, seen))
        return (candidate){0, 0};
    size_t slabs = LOAD(&pm_learn.slabs[klass]), before = pm_learn.before[klass];
    best.saved = best.saved / seen * size_max(seen, slabs - size_min(before, slabs));
    return best;
}

static size_t price(uint32_t heaps)
{
    return size_max(heaps, 1) * POOL_COST << pm_learn.changes / DEARER_EVERY;
}

/* What is held already stays as it is: a further size saves where more is going to be held. Where no more is than there once was, each
 * look in vain makes the next one rarer. */
static bool class_grows(unsigned klass)
{
    uint32_t slabs = LOAD(&pm_learn.slabs[klass]), shift = slabs > LOAD(&pm_learn.most[klass]) ? 0 : LOAD(&pm_learn.vain[klass]);
    return LOAD(&pm_learn.opened[klass]) >> shift >= GROWTH_LEAST + slabs / 4;
}

static void class_look(unsigned klass, uint32_t heaps)
{
    if (!os_lock_try(&pm_learn.lock))
        return;
    STORE(&pm_learn.opened[klass], 0);
    STORE(&pm_learn.most[klass], (uint32_t)size_max(LOAD(&pm_learn.most[klass]), LOAD(&pm_learn.slabs[klass])));
    size_t most = LOAD(&pm_learn.slabs[klass]) * (SLAB_SIZE / 4); /* a class's sizes differ by less, from 64 bytes on */
    candidate best = most > price(heaps) && pm_learn.changes < LEARN_CHANGES ? best_size(klass) : (candidate){0, 0};
    bool worth = best.saved > price(heaps);
    STORE(&pm_learn.vain[klass], worth ? 0 : (uint8_t)size_min(pm_learn.vain[klass] + 1u, VAIN_MOST));
    if (worth)
        class_insert(best.at, klass);
    os_lock_give(&pm_learn.lock);
}

/* Blocks of a larger class, or of an aligned one, are no sample. */
void learn_note(slab *s, size_t size, uint32_t heaps)
{
    size_t at = (size_max(size, 1) + QUANTUM - 1) / QUANTUM; /* of 0 bytes, too, is a block */
    unsigned klass = s->klass;
    if (!pm_learn.on || s->asked == at || LOAD(&pm_learn.slabs[klass]) < SEEN_FROM || class_at(at) != klass)
        return;
    held_forget(s);
    held_add(at, 1);
    s->asked = (uint16_t)at;
    if (class_grows(klass))
        class_look(klass, heaps);
}

/* ---- hidden sizes ---- */

uint16_t pm_sizes_aside[BLOCK_MAX / QUANTUM + 1] RARE;

bool sizes_hide(bool hide)
{
    if (!os_lock_try(&pm_learn.lock))
        return false;
    uint16_t *from = hide ? pm_bin_offset : pm_sizes_aside, *to = hide ? pm_sizes_aside : pm_bin_offset;
    bool change = pm_sizes == from;
    for (size_t i = 0; change && i <= BLOCK_MAX / QUANTUM; i++)
        __atomic_store_n(&to[i], LOAD(&from[i]), __ATOMIC_RELEASE);
    __atomic_store_n(&pm_sizes, to, __ATOMIC_RELEASE);
    for (size_t i = 0; change && hide && i <= BLOCK_MAX / QUANTUM; i++)
        STORE(&pm_bin_offset[i], (uint16_t)(CLASS_NONE * BIN_SIZE));
    STORE(&pm_kept_bins, hide ? 0 : KEPT_BINS);
    watch_hidden(hide);
    os_lock_give(&pm_learn.lock);
    return true;
}
