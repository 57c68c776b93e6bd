/* depot.c: See depot.h. */
#include "pools/depot.h"

#include "pools/class.h"
#include "ground/config.h"
#include "pools/heap_ids.h"
#include "ground/text.h"

#define PURGE_BATCH 8
#define SLACK_BYTES (4 * MIB)
#define REGRET_MS 100
#define REFUSED_MS 1000 /* after the kernel refused to purge (locked memory) it is not asked again for so long */
#define GUARDED_SLABS 8192 /* 1 GiB: each guard is two mappings of the 65,530 of a process; from there on one a unit */

depot pm_depot;

/* Below 0: another thread's clock was ahead. */
static int64_t ms_since(uint32_t then, uint64_t now) { return (int32_t)((uint32_t)now - then); }

#define HEAPS_SHARE 64 /* of the limit, which slabs leave to heaps: a thread that begins at the limit has one, too */
#define HEAPS_MOST 4   /* of the limit, for heaps at most */

static bool limit_allows(size_t touched)
{
    size_t heaps = size_max(LOAD(&pm_depot.heap_bytes), pm_config.limit / HEAPS_SHARE);
    return pm_config.limit == 0 || touched + heaps + LOAD(&pm_depot.fresh) * (sizeof(slab) + SLAB_BITS_STEP) <= pm_config.limit;
}

bool depot_allows_heap(size_t bytes)
{
    size_t heaps = pm_depot.heap_bytes + bytes;
    return pm_config.limit == 0 || heaps <= pm_config.limit / HEAPS_SHARE ||
           (heaps <= pm_config.limit / HEAPS_MOST && limit_allows(LOAD(&pm_depot.touched) + bytes));
}

static void untouch(size_t bytes) { __atomic_fetch_sub(&pm_depot.touched, bytes, __ATOMIC_RELAXED); }

/* A huge page is in memory as a whole. */
bool depot_touch(slab *s, size_t bytes)
{
    if (LIKELY(s->touched == SLAB_ROOM))
        return true;
    bytes = LOAD(&slab_unit(s)->unit_huge) ? SLAB_ROOM : size_min(round_up(bytes, os_page_size()), SLAB_ROOM);
    if (bytes <= s->touched)
        return true;
    size_t more = bytes - s->touched;
    if (UNLIKELY(!limit_allows(__atomic_add_fetch(&pm_depot.touched, more, __ATOMIC_RELAXED)))) {
        untouch(more);
        return false;
    }
    s->touched = (uint32_t)bytes;
    return true;
}

/* What is touched of a slab for the first block of a class, or all of it. */
static bool touch_first(slab *s, unsigned klass)
{
    bool may = depot_touch(s, klass == CLASS_NONE ? SLAB_ROOM : slab_offset(s, &pm_classes[klass], 1));
    pm_depot.limit_hits += !may;
    return may;
}

void depot_note_ripe(slab *s, int more)
{
    depot_note_unripe(s, false);
    __atomic_fetch_add(&pm_depot.ripe, more, __ATOMIC_RELAXED);
}

void depot_note_unripe(slab *s, bool unripe)
{
    if (s->unripe != unripe)
        __atomic_fetch_add(&pm_depot.unripe, unripe ? 1 : -1, __ATOMIC_RELAXED);
    s->unripe = unripe;
}

/* Huge pages for a unit about to be begun: only where what they waste, about half of each slab in a huge unit that was
 * never full, and half of this unit, is less than a twentieth of what is in use for certain: the slabs that were full once; and where
 * a unit's worth of what was purged was wanted again, what was purged just now, and as many of the regrets. With a limit, never: it
 * counts pages, not units. 25 to 31 % off pointer-chasing work, measured. */
static bool unit_wants_huge(void)
{
    const depot *d = &pm_depot;
    if (pm_config.hugepages != HUGEPAGES_AUTO)
        return pm_config.hugepages == HUGEPAGES_ALWAYS;
    size_t again = d->regrets >= UNIT_SLABS ? d->recent + size_min(d->recent, d->regrets) : 0;
    return pm_config.limit == 0 && (LOAD(&d->unripe) + (int64_t)UNIT_SLABS) * 10 <= LOAD(&d->ripe) + (int64_t)again;
}

/* Its empty slabs are the next to be purged. */
static void unit_split(slab *unit)
{
    unit_advise(unit, false);
    for (slab *s = unit; s < unit + UNIT_SLABS; s++) {
        if (LOAD(&s->state) != SLAB_DIRTY)
            continue;
        slab_list_remove(&pm_depot.broken, s);
        slab_list_append(&pm_depot.dirty, s);
    }
}

void depot_split(slab *s)
{
    slab *unit = slab_unit(s);
    os_lock_take(&pm_depot.lock);
    if (unit->unit_huge)
        unit_split(unit);
    os_lock_give(&pm_depot.lock);
}

static slab *take_fresh(unsigned klass)
{
    depot *d = &pm_depot;
    if (d->fresh << SLAB_SHIFT >= pm_region.size && !region_grow())
        return NULL;
    slab *s = &pm_region.slabs[d->fresh];
    if (d->fresh % UNIT_SLABS == 0 && (d->fresh + UNIT_SLABS) << SLAB_SHIFT <= pm_region.size)
        unit_advise(s, unit_wants_huge());
    STORE(&d->fresh, d->fresh + 1); /* first: its record counts, too */
    if (!touch_first(s, klass)) {
        STORE(&d->fresh, d->fresh - 1);
        return NULL;
    }
    if (PM_HARDENED && (d->fresh <= GUARDED_SLABS || s == slab_unit(s)))
        os_shut(slab_memory(s), SLAB_GUARD);
    return s;
}

static bool unit_is_clean(const slab *unit)
{
    size_t clean = 0;
    if (unit->unit_empty < UNIT_SLABS)
        return false;
    while (clean < UNIT_SLABS && unit[clean].state == SLAB_CLEAN)
        clean++;
    return clean == UNIT_SLABS;
}

/* A unit all of whose slabs have no pages goes to the end of the list, in one piece: what is left of others is taken first. */
static void unit_gather(slab *unit)
{
    if (!unit_is_clean(unit))
        return;
    for (slab *s = unit; s < unit + UNIT_SLABS; s++) {
        slab_list_remove(&pm_depot.clean, s);
        slab_list_append(&pm_depot.clean, s);
    }
}

/* A clean unit is as good as fresh: it may get huge pages again, once its page table is gone (since Linux 6.14). */
static void unit_renew(slab *unit)
{
    if (unit->unit_huge || !unit_is_clean(unit) || !unit_wants_huge())
        return;
    os_purge(slab_memory(unit), UNIT_SIZE);
    unit_advise(unit, true);
}

/* A slab without pages: one that was purged, or one never used. */
static slab *take_clean(unsigned klass)
{
    depot *d = &pm_depot;
    slab *s = d->clean.first;
    if (s) {
        if (s == slab_unit(s))
            unit_renew(s);
        if (!touch_first(s, klass))
            return NULL;
        slab_list_remove(&d->clean, s);
        slab_unit(s)->unit_empty--;
        PROBE(slab_reuse, 0, s);
    } else if ((s = take_fresh(klass)) == NULL) {
        return NULL;
    }
    s->state = SLAB_ZEROED;
    return s;
}

static slab_list *unit_dirty(const slab *unit) { return unit->unit_huge ? &pm_depot.broken : &pm_depot.dirty; }

/* An empty unit becomes sixteen loose slabs. */
static void unit_break(slab *unit)
{
    slab_list_remove(&pm_depot.whole, unit);
    for (slab *s = unit + UNIT_SLABS; s-- > unit;) {
        s->state = SLAB_DIRTY;
        slab_list_push(unit_dirty(unit), s);
    }
}

static slab *take_empty(unsigned klass)
{
    depot *d = &pm_depot;
    if (!d->broken.first && !d->dirty.first && d->whole.first)
        unit_break(d->whole.first);
    slab_list *from = d->broken.first ? &d->broken : &d->dirty;
    slab *s = from->first;
    if (!s)
        return take_clean(klass);
    if (!touch_first(s, klass))
        return NULL;
    slab_list_remove(from, s);
    slab_unit(s)->unit_empty--;
    s->state = SLAB_USED;
    return s;
}

static slab *take_waiting(size_class *c)
{
    slab *s = c->waiting;
    if (s) {
        c->waiting = s->next;
        c->waiting_count--;
        pm_depot.waiting--;
        s->state = SLAB_USED;
    }
    return s;
}

/* ---- handfuls ---- */

static size_t dirty_allowed(void);

/* Half of what others leave, so that all of them together never have more than may lie empty. */
static void handful_settle(handful *h)
{
    depot *d = &pm_depot;
    d->lent -= h->may;
    size_t left = dirty_allowed() - size_min(dirty_allowed(), d->lent);
    h->may = (uint16_t)(h->wants > 1 ? size_min(size_min(h->wants, left / 2), h->slabs / 4) : 0);
    d->lent += h->may;
}

/* Not at the limit, where each slab may be another one's need. */
void handful_grow(handful *h)
{
    if (!pm_config.limit)
        h->wants = (uint16_t)size_min(2 * (size_t)h->wants, HANDFUL_MOST);
}

void handful_drop(handful *h)
{
    h->wants = 1;
    if (h->may == 0)
        return;
    os_lock_take(&pm_depot.lock);
    handful_settle(h);
    os_lock_give(&pm_depot.lock);
}

static slab *take_one(unsigned klass)
{
    slab *s = take_waiting(&pm_classes[klass]);
    if (!s)
        s = take_empty(klass);
    pm_depot.used += s != NULL;
    PROBE(slab_take, klass, s);
    return s;
}

/* What was never used nobody misses; the rest is memory that others may need, or that goes back. */
static bool only_fresh(void)
{
    const depot *d = &pm_depot;
    return !d->broken.first && !d->dirty.first && !d->whole.first && !d->clean.first;
}

/* So many clean slabs were taken: as much as we just gave back is needed again, those or others. */
static void regret(size_t taken)
{
    depot *d = &pm_depot;
    taken = size_min(taken, d->recent);
    if (taken == 0 || ms_since(d->purged_at, os_now_ms()) >= REGRET_MS)
        return;
    d->recent -= taken;
    d->regrets += taken;
}

slab *depot_take(unsigned klass, handful *h)
{
    slab *first = NULL, **end = &first;
    size_t most = h && !pm_classes[klass].reserved ? h->wants : 1;
    os_lock_take(&pm_depot.lock);
    if (h)
        handful_settle(h);
    size_t clean = pm_depot.clean.count;
    for (size_t n = 0; n < most && (n == 0 || n < h->may || only_fresh()) && (*end = take_one(klass)) != NULL; n++)
        end = &(*end)->next;
    *end = NULL;
    regret(clean - pm_depot.clean.count);
    os_lock_give(&pm_depot.lock);
    return first;
}

/* ---- giving back ---- */

static void put_waiting(size_class *c, slab *s)
{
    s->state = SLAB_WAITING;
    s->next = c->waiting;
    c->waiting = s;
    c->waiting_count++;
    pm_depot.waiting++;
}

/* All of it is empty: it stays, or goes, as one. */
static void unit_put(slab *unit, uint32_t now)
{
    depot *d = &pm_depot;
    for (slab *each = unit; each < unit + UNIT_SLABS; each++) {
        __atomic_fetch_add(&d->touched, SLAB_ROOM - each->touched, __ATOMIC_RELAXED); /* since a neighbour was */
        each->touched = SLAB_ROOM;
        slab_list_remove(each->state == SLAB_CLEAN ? &d->clean : unit_dirty(unit), each);
        each->state = SLAB_WHOLE;
    }
    unit->since = now;
    slab_list_push(&d->whole, unit);
}

/* A unit that has huge pages; or was being purged: with one call, after which huge pages may come again. */
static bool unit_is_one(const slab *unit, uint64_t now)
{
    return unit->unit_empty == UNIT_SLABS && (unit->unit_huge || (!pm_config.limit && ms_since(pm_depot.purged_at, now) < REGRET_MS));
}

/* It was never touched. */
static void put_clean(slab *s)
{
    s->state = SLAB_CLEAN;
    untouch(s->touched);
    s->touched = 0;
    slab_unit(s)->unit_empty++;
    slab_list_push(&pm_depot.clean, s);
    unit_gather(slab_unit(s));
}

static void put_one(slab *s, uint64_t now, bool untouched)
{
    size_class *c = &pm_classes[s->klass];
    pm_depot.used--;
    PROBE(slab_put, s->klass, s);
    STORE(&s->owner, HEAP_NOBODY);
    STORE(&s->home, HEAP_NOBODY);
    STORE(&s->bin, NULL);
    s->since = (uint32_t)now;
    if (c->waiting_count < c->reserved) {
        put_waiting(c, s);
        return;
    }
    if (untouched && !slab_unit(s)->unit_huge) {
        put_clean(s);
        return;
    }
    s->state = SLAB_DIRTY;
    slab *unit = slab_unit(s);
    unit->unit_empty++;
    slab_list_push(unit_dirty(unit), s);
    if (unit_is_one(unit, now))
        unit_put(unit, s->since);
}

/* ---- purging: chosen under the lock, purged outside of it, then listed as clean ---- */

/* Empty slabs beyond which the oldest go back at once; more after regrets, so that a program that frees and
 * takes the same memory again and again soon keeps it. */
static size_t dirty_allowed(void)
{
    return size_max(SLACK_BYTES / SLAB_SIZE, pm_depot.used / 8) + pm_depot.regrets;
}

bool depot_purges(uint64_t now)
{
    uint32_t refused = LOAD(&pm_depot.refused_at);
    return pm_config.purge_delay != DELAY_NEVER && (!refused || ms_since(refused, now) >= REFUSED_MS);
}

/* Whether the last entry of a list has to go: by age, or because there are more than allowed. */
static bool must_purge(const slab_list *l, uint64_t now, bool all)
{
    depot *d = &pm_depot;
    if (!l->last)
        return false;
    if (all)
        return true;
    if (!depot_purges(now))
        return false;
    if (ms_since(l->last->since, now) >= pm_config.purge_delay) {
        d->regrets /= 2;
        return true;
    }
    return d->broken.count + d->dirty.count + d->whole.count * UNIT_SLABS + d->lent > dirty_allowed();
}

/* The oldest of the first list that has one to go: whole units before slabs, and those of broken units last. A unit of
 * which only a part is purged loses its huge page until all of it was: the kernel frees the part's memory when it needs
 * some, and must not put a huge page there again meanwhile. */
static slab *choose(uint64_t now, bool all)
{
    depot *d = &pm_depot;
    slab_list *const lists[] = {&d->whole, &d->dirty, &d->broken};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        if (!must_purge(lists[i], now, all))
            continue;
        slab *s = lists[i]->last;
        if (lists[i] == &d->broken)
            unit_split(slab_unit(s));
        slab_list_remove(i == 0 ? &d->whole : &d->dirty, s);
        slab_unit(s)->unit_empty = (uint8_t)(slab_unit(s)->unit_empty - (i == 0 ? UNIT_SLABS : 1));
        return s;
    }
    return NULL;
}

static size_t purge_one(slab *s)
{
    size_t slabs = s->state == SLAB_WHOLE ? UNIT_SLABS : 1;
    PROBE(purge, slab_memory(s), slabs);
    return os_purge(slab_memory(s), slabs * SLAB_SIZE) ? slabs : 0;
}

static void purged(slab *s, size_t slabs, uint64_t now)
{
    depot *d = &pm_depot;
    slab_unit(s)->unit_empty = (uint8_t)(slab_unit(s)->unit_empty + (s->state == SLAB_WHOLE ? UNIT_SLABS : 1));
    if (slabs == 0) { /* refused (locked memory): it stays dirty, and young */
        s->since = (uint32_t)now;
        STORE(&d->refused_at, (uint32_t)now | 1);
        slab_list_push(s->state == SLAB_WHOLE ? &d->whole : &d->dirty, s);
        return;
    }
    depot_tell_news();
    d->purges += slabs;
    d->recent = (ms_since(d->purged_at, now) < REGRET_MS ? d->recent : 0) + slabs;
    d->purged_at = (uint32_t)now;
    for (slab *each = s + slabs; each-- > s;) {
        each->state = SLAB_CLEAN;
        untouch(each->touched);
        each->touched = 0;
        slab_list_push(&d->clean, each);
    }
    unit_gather(slab_unit(s));
}

/* One batch; the depot lock is held on entry and on return, not while the kernel works. */
static size_t purge_batch(uint64_t now, bool all, bool *refused)
{
    slab *chosen[PURGE_BATCH];
    size_t gone[PURGE_BATCH], n = 0, bytes = 0;
    while (n < PURGE_BATCH && (chosen[n] = choose(now, all)) != NULL)
        n++;
    if (n == 0)
        return 0;
    os_lock_give(&pm_depot.lock);
    for (size_t i = 0; i < n; i++)
        gone[i] = purge_one(chosen[i]);
    os_lock_take(&pm_depot.lock);
    for (size_t i = 0; i < n; i++) {
        purged(chosen[i], gone[i], now);
        bytes += gone[i] * SLAB_SIZE;
        *refused |= gone[i] == 0;
    }
    return bytes;
}

void depot_put(slab *chain, handful *h)
{
    bool refused = false;
    size_t most = 0;
    uint64_t now = os_now_ms();
    os_lock_take(&pm_depot.lock);
    if (h)
        handful_settle(h);
    for (slab *s; (s = chain) != NULL; most++) {
        chain = s->next;
        put_one(s, now, h && s->state == SLAB_ZEROED);
    }
    depot_tell_news();
    for (size_t done = 0; done < most && purge_batch(now, false, &refused) && !refused; done += PURGE_BATCH)
        ;
    os_lock_give(&pm_depot.lock);
}

size_t depot_purge(bool all)
{
    size_t bytes = 0, more;
    bool refused = false;
    uint64_t now = os_now_ms();
    os_lock_take(&pm_depot.lock);
    do {
        more = purge_batch(now, all, &refused);
        bytes += more;
    } while (all && more && !refused);
    os_lock_give(&pm_depot.lock);
    return bytes;
}

/* The last unit is as if it had never been handed out, if nothing of it holds a page. */
static bool unit_drop(void)
{
    depot *d = &pm_depot;
    if (d->fresh == 0)
        return false;
    slab *end = &pm_region.slabs[d->fresh], *unit = slab_unit(end - 1);
    if (unit->unit_empty < end - unit)
        return false;
    for (slab *s = unit; s < end; s++)
        if (s->state != SLAB_CLEAN)
            return false;
    for (slab *s = unit; s < end; s++) {
        slab_list_remove(&d->clean, s);
        s->state = SLAB_NONE;
    }
    unit_advise(unit, false);
    unit->unit_empty = 0;
    STORE(&d->fresh, slab_index(unit));
    return true;
}

bool depot_shrink(void)
{
    os_lock_take(&pm_depot.lock);
    while (unit_drop())
        ;
    bool less = region_shrink(pm_depot.fresh);
    os_lock_give(&pm_depot.lock);
    return less;
}

size_t depot_reserve(unsigned klass, size_t count, bool prefault, bool *lock)
{
    size_class *c = &pm_classes[klass];
    size_t done = 0;
    os_lock_take(&pm_depot.lock);
    for (; done < count; done++) {
        slab *s = take_clean(CLASS_NONE);
        if (!s)
            break;
        if (prefault)
            os_populate(slab_begin(s), SLAB_ROOM);
        if (*lock && !os_mlock(slab_begin(s), SLAB_ROOM))
            *lock = false;
        s->klass = (uint8_t)klass;
        s->owner = s->home = HEAP_NOBODY;
        c->reserved++;
        put_waiting(c, s);
    }
    if (prefault)
        region_populate(pm_depot.fresh);
    os_lock_give(&pm_depot.lock);
    return done;
}

/* ---- check ---- */

static size_t list_check(const slab_list *l, slab_state state, const char *name)
{
    size_t n = 0;
    const slab *before = NULL;
    for (const slab *s = l->first; s; before = s, s = s->next, n++)
        if (s->prev != before || s->state != state || s->home != HEAP_NOBODY)
            report_abort("check: depot.%s: slab %zu: state %u, or its links or home are wrong", name, slab_index(s), s->state);
    if (n != l->count || l->last != before)
        report_abort("check: depot.%s: %zu slabs listed, %zu counted", name, n, l->count);
    return n;
}

void depot_check(void)
{
    depot *d = &pm_depot;
    os_lock_take(&d->lock);
    size_t listed = list_check(&d->dirty, SLAB_DIRTY, "dirty") + list_check(&d->broken, SLAB_DIRTY, "broken") +
                    list_check(&d->whole, SLAB_WHOLE, "whole") * UNIT_SLABS;
    size_t clean = list_check(&d->clean, SLAB_CLEAN, "clean");
    if (d->used + d->waiting + listed + clean > d->fresh || d->fresh << SLAB_SHIFT > pm_region.size)
        report_abort("check: depot: %zu used, %zu waiting, %zu listed, %zu clean of %zu", d->used, d->waiting, listed, clean,
                     d->fresh);
    os_lock_give(&d->lock);
}
