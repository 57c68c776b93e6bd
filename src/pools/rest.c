/* rest.c: See rest.h. */
#include "pools/rest.h"

#include "ground/config.h"
#include "pools/depot.h"
#include "pools/slab.h"

#define PINS_LOOK 8
#define FALLS_LEAST 3   /* slabs near their end since a bin was filled: fewer are chance, where blocks are replaced at random */
#define FALLS_DOWN 16   /* bins with blocks for each of them */
#define REST_BLOCKS 256 /* that go home at once, at most */
#define DOWN_BLOCKS SLAB_BLOCKS_MAX /* the same, where all bins do; the others keep theirs until the next fall */
#define DOWN_SWEEP 32   /* slabs of a bin that are looked at */
#define BUSY_MS 4       /* CALM fills of a thread that is down, within this: it is busy again */
#define FALL_CALLS 128    /* what a fall costs besides, in blocks: a size of few blocks may fall again and again */
#define FALL_BLOCKS 16384 /* that falls send home within a purge delay: with their refills little beside what a thread can do in it */
#define THIN_CALLS 32   /* what a slab costs besides, in blocks */
#define THIN_LEAST (4 * MIB) /* of the process, below which it does not matter */
#define RENEW_MOST 10000u /* ms after which both begin anew, where the purge delay is longer, or never ends */
#define REST_SLABS 8    /* that give pages back at one look */
#define REST_SWEEP 512  /* slabs that a nearly idle thread looks at, or another one at its heap */

/* ---- pages between blocks in use ---- */

/* Bytes that a slab's blocks in use take, each a page at least; more than is known of one that no heap has. */
static PEEKS size_t slab_holds(const slab *s)
{
    if (!slab_in_use(s) && s->state != SLAB_WAITING)
        return 0;
    if (LOAD(&s->home) == HEAP_POOL || s->state == SLAB_WAITING || s->klass >= classes_count())
        return SLAB_SIZE;
    return size_min((size_t)(pm_classes[s->klass].per_slab - s->free) * size_max(pm_classes[s->klass].size, 4 * KIB), SLAB_SIZE);
}

/* A guess: other heaps' slabs change meanwhile. */
static PEEKS bool unit_is_sparse(const slab *unit)
{
    size_t bytes = 0;
    for (const slab *s = unit; s < unit + UNIT_SLABS; s++)
        bytes += slab_holds(s);
    return bytes <= UNIT_SIZE / 8;
}

/* What another thread has opened, but not accepted yet, has nothing out. Only what is in the bits is known to be free for good. */
PEEKS size_t slab_give_pages(slab *s)
{
    const size_class *c = &pm_classes[s->klass];
    if (s->free == c->per_slab || s->free == 0 || s->trimmed || c->head || (c->reserved && (pm_config.prefault || pm_config.lock)))
        return 0;
    slab *unit = slab_unit(s);
    if (LOAD(&unit->unit_huge)) {
        if (!unit_is_sparse(unit))
            return 0;
        depot_split(unit);
        depot_note_unripe(s, false);
    }
    s->trimmed = true;
    return slab_purge(s, c);
}

/* Pages between its blocks go back; false: they may not. `mine`: by the heap's thread. */
static bool slab_trim(slab *s, uint32_t now, bool mine)
{
    const size_class *c = &pm_classes[s->klass];
    if (c->reserved || s->trimmed || !depot_purges(now))
        return false;
    slab_gather(s, c, mine);
    if (mine)
        slab_look_set(s, c);
    slab_give_pages(s);
    return s->trimmed;
}

/* ---- what giving back may cost in a purge delay ---- */

static void budget_renew(rest_state *r, uint32_t now)
{
    if (now - r->renewed < size_min(pm_config.purge_delay, RENEW_MOST))
        return;
    r->renewed = now;
    r->fell = r->thinned = 0;
}

/* Who makes and frees the same blocks over and over falls each time, and has not come down. */
static bool fall_counts(rest_state *r)
{
    if (UNLIKELY(r->fell >= FALL_BLOCKS))
        budget_renew(r, (uint32_t)os_now_ms());
    return r->fell < FALL_BLOCKS;
}

/* A slab of a heap that is down, of which little is left. */
static void slab_thins(heap *h, slab *s)
{
    const size_class *c = &pm_classes[s->klass];
    if (h->rest.thinned >= THIN_BLOCKS || slab_out(s) - slab_returned(s) > slab_few(c) || LOAD(&pm_depot.touched) < THIN_LEAST)
        return;
    h->rest.thinned += THIN_CALLS + (uint32_t)slab_chained(s, c);
    slab_trim(s, (uint32_t)os_now_ms(), true);
    PROBE(slab_thins, s->klass, s);
}

/* ---- falls ---- */

static void bin_rests(heap *h, bin *b)
{
    if (b->free && b->free == b->seen)
        bin_home(h, b, REST_BLOCKS);
    b->seen = b->free;
}

/* Its blocks go home, and it keeps nothing until the next malloc has filled it again: every free goes to its slab, which notices the
 * last one. */
static void bin_falls(heap *h, bin *b)
{
    h->rest.fell += (uint32_t)(b->limit - b->room);
    bin_home(h, b, SIZE_MAX);
    bin_limit_set(b, 0);
}

/* What its bin has at hand went home: those nearly empty thin. */
static void slabs_fall(heap *h, const bin *b)
{
    slab *s = b->partial;
    for (int n = 0; s && n < DOWN_SWEEP; n++, s = s->next == b->partial ? NULL : s->next) {
        slab_look_set(s, &pm_classes[b->klass]);
        slab_thins(h, s);
    }
}

static void heap_comes_down(heap *h)
{
    int32_t most = DOWN_BLOCKS;
    h->rest.down = true;
    h->rest.sampled = (uint32_t)os_now_ms();
    h->fills = CALM;
    budget_renew(&h->rest, h->rest.sampled);
    for (unsigned c = 0; c < classes_count(); c++) {
        bin *b = &h->bins[c];
        int32_t held = b->limit - b->room;
        if (held <= most) {
            bin_falls(h, b);
            most -= held;
        }
        slabs_fall(h, b);
    }
    PROBE(comes_down, h->number, h->rest.falls);
}

/* A thread that comes down in one size does so in others, and may sleep then: bins that rested since the last fall go home too. All
 * fall where so many slabs came near their end, and no bin was filled meanwhile, that a refill for each bin with blocks is little
 * beside them. */
static void bins_rest(heap *h)
{
    unsigned holding = 0;
    for (unsigned c = 0; c < classes_count(); c++)
        holding += h->bins[c].free != NULL;
    if (h->rest.falls * FALLS_DOWN >= holding)
        heap_comes_down(h);
    else
        for (unsigned c = 0; c < classes_count(); c++)
            bin_rests(h, &h->bins[c]);
}

/* Whether most blocks, by the first ones, lie each in a slab of which little else is in use: they are why it is kept. */
static bool bin_pins(bin *b)
{
    size_t seen = 0, pins = 0;
    block *chain = bin_detach(b);
    for (const block *p = chain; p && seen < PINS_LOOK; p = p->next, seen++)
        pins += slab_is_near(slab_of(p), &pm_classes[b->klass]);
    bin_attach(b, chain);
    return 2 * pins > seen;
}

/* What is at hand may be all that keeps slabs. */
static NOINLINE void fall_end(heap *h, bin *b)
{
    h->rest.fell += FALL_CALLS;
    bin_falls(h, b);
    bins_rest(h);
}

/* The bin's only slab that is on its list, and what is out of it is at hand: the program has nothing of this size. */
static bool bin_has_all(const bin *b, const slab *s)
{
    return s->next == s && (int32_t)slab_out(s) <= b->limit - b->room;
}

void rest_near(heap *h, slab *s)
{
    bin *b = s->bin;
    if (b->limit == 0 && h->rest.down)
        slab_thins(h, s);
    if (b->limit > 0 && (++h->rest.falls >= FALLS_LEAST || bin_has_all(b, s)) && fall_counts(&h->rest) && bin_pins(b)) {
        fall_end(h, b);
        PROBE(fall_ends, b->klass, s);
    }
}

/* ---- now and then ---- */

/* As many blocks are out as at the last look, and so for the time that an empty slab is kept: pages between them go back. */
static bool slab_rests(slab *s, uint32_t now)
{
    size_t out = slab_out(s);
    if (s->rest != out || s->trimmed) {
        s->rest = (uint16_t)out;
        s->since = now;
    }
    return now - s->since >= pm_config.purge_delay;
}

typedef struct sweep {
    uint32_t now; /* 0: nobody looks for slabs at rest */
    int looks;    /* slabs that may be looked at */
    int rests;    /* of them at rest, whose pages may go */
    bool mine;    /* by the heap's thread, or it has none */
} sweep;

/* Slabs whose last blocks came from several sides at once may have become empty unnoticed; and those at rest. */
static void bin_sweep(heap *h, bin *b, sweep *w)
{
    for (slab *s = b->partial, *next; s && w->looks > 0 && w->rests > 0; w->looks--, s = next) {
        next = s->next == b->partial ? NULL : s->next;
        if (slab_is_home(s)) {
            slab_emptied(h, s);
        } else if (w->now && slab_rests(s, w->now)) {
            w->rests -= slab_trim(s, w->now, w->mine);
        }
    }
}

/* One slab, since h's own thread may be waiting. */
void rest_visited(heap *h, uint32_t now)
{
    sweep w = {now, REST_SWEEP, 1, h->state == HEAP_IDLE};
    for (unsigned n = classes_count(), i = 0; i < n && w.rests > 0; i++)
        bin_sweep(h, &h->bins[(now + i) % n], &w);
}

void rest_calm(heap *h, bin *b)
{
    uint32_t now = h->rest.down ? (uint32_t)os_now_ms() : 0;
    if (now)
        budget_renew(&h->rest, now);
    bin_rests(h, b);
    b->pace = pace_less(b->pace);
    if (b->limit > pm_classes[b->klass].limit)
        bin_limit_set(b, size_max(b->limit / 2, pm_classes[b->klass].limit));
    bin_sweep(h, b, &(sweep){now, now ? REST_SWEEP : DOWN_SWEEP, REST_SLABS, true});
}

void rest_sample(heap *h)
{
    uint32_t now = h->rest.down ? (uint32_t)os_now_ms() : 0;
    h->rest.down = now && now - h->rest.sampled >= BUSY_MS;
    h->rest.sampled = now;
}
