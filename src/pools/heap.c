/* heap.c: see heap.h; the states of a slab are drawn in docs/DESIGN.md. */
#include "pools/heap.h"

#include "ground/config.h"
#include "ground/text.h"
#include "pools/depot.h"
#include "pools/learn.h"
#include "pools/misuse.h"
#include "pools/slab.h"

#include <string.h>

/* Not in the file, for all that it is constant: pages of zeros that are only read take no memory (unless mlockall makes them). */
char pm_no_heaps[NO_HEAPS_BYTES] RARE __attribute__((aligned(64)));
static_assert(NO_HEAPS_BYTES % sizeof(uint64_t) == 0, "");

__thread heap *my_heap = HEAP_NONE;
__thread int64_t pm_unwatched;
unsigned pm_kept_bins = KEPT_BINS;
/* For the inline ways of poolmalloc.h. */
extern __thread heap *pm_thread __attribute__((alias("my_heap"), visibility("default"), tls_model("initial-exec")));

void heap_init(heap *h, uint32_t number)
{
    h->number = number;
    h->handful.wants = 1;
    h->fills = CALM;
    for (unsigned c = 0; c < CLASS_NONE; c++) {
        bin *b = &h->bins[c];
        b->klass = (uint8_t)c;
        uint16_t limit = pm_every_call_slow ? 0 : LOAD(&pm_classes[c].limit);
        STORE(&b->room, limit); /* first: a reader in between sees an empty bin */
        STORE(&b->limit, limit);
    }
}

void heap_ids_check(void)
{
    for (size_t i = 0; i < sizeof pm_no_heaps; i += sizeof(uint64_t))
        if (*(const uint64_t *)(const void *)&pm_no_heaps[i])
            report_abort("check: the constant heaps were written to, %zu bytes into them", i);
}

/* ---- the lock ---- */

/* Others hold it for a bounded while, and wait for nothing meanwhile. */
void heap_lock_wait(heap *h)
{
    for (;;) {
        uint32_t state = HEAP_FREE;
        if (__atomic_compare_exchange_n(&h->lock, &state, HEAP_MINE, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            return;
        if (state == HEAP_AWAITED || __atomic_compare_exchange_n(&h->lock, &state, HEAP_AWAITED, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            os_wait(&h->lock, HEAP_AWAITED);
    }
}

void heap_unlock(heap *h)
{
    slab *leaving = h->leaving;
    h->leaving = NULL;
    if (UNLIKELY(__atomic_exchange_n(&h->lock, HEAP_FREE, __ATOMIC_RELEASE) == HEAP_AWAITED))
        os_wake(&h->lock);
    if (leaving)
        depot_put(leaving, NULL);
}

NOINLINE void heap_part(heap *h)
{
    slab *leaving = h->leaving;
    h->leaving = NULL;
    depot_put(leaving, &h->handful);
}

/* ---- slabs of a heap ---- */

static void partial_push(bin *b, slab *s)
{
    slab *first = b->partial;
    s->listed = true;
    if (!first) {
        s->next = s->prev = s;
        STORE(&b->partial, s);
        return;
    }
    s->next = first;
    s->prev = first->prev;
    s->prev->next = s;
    first->prev = s;
}

static void partial_remove(bin *b, slab *s)
{
    size_t out = slab_out(s);
    s->listed = false;
    STORE(&s->look, (uint16_t)(out > 0 ? out - 1 : 0)); /* the next block that comes home */
    slab_out_set(s, out);
    s->prev->next = s->next;
    s->next->prev = s->prev;
    if (b->partial == s)
        STORE(&b->partial, s->next == s ? NULL : s->next);
}

static void slab_settle(slab *s, heap *h, unsigned klass)
{
    STORE(&s->bin, &h->bins[klass]);
    STORE(&s->home, h);
    STORE(&s->owner, pm_every_call_slow ? HEAP_NOBODY : h);
    h->handful.slabs++;
}

void heap_keep(heap *h, slab *s)
{
    STORE(&s->home, HEAP_NOBODY);
    s->next = h->spare;
    h->spare = s;
    h->spares++;
}

static void slab_leaves(heap *h, slab *s)
{
    STORE(&s->home, HEAP_NOBODY);
    s->next = h->leaving;
    h->leaving = s;
}

/* The spares behind so many, the oldest, leave. */
static void spares_leave(heap *h, size_t kept)
{
    slab **end = &h->spare;
    for (size_t n = kept; n > 0; n--)
        end = &(*end)->next;
    for (slab *s = *end, *next; s; s = next) {
        next = s->next;
        slab_leaves(h, s);
    }
    *end = NULL;
    h->spares = (uint16_t)kept;
}

/* Room among the spares; where there is none all but the newest quarter leave at once. */
static void spares_room(heap *h)
{
    size_t most = size_max(SPARES, handful_most(&h->handful));
    if (h->spares < most)
        return;
    spares_leave(h, most / 4);
    h->spare_idle = false; /* as many again are to follow, or to be taken */
    PROBE(handful, h->number, most);
    handful_grow(&h->handful);
}

/* All blocks are home. */
NOINLINE void slab_emptied(heap *h, slab *s)
{
    const size_class *c = &pm_classes[s->klass];
    partial_remove(s->bin, s);
    slab_close(s, c);
    learn_close(s);
    h->handful.slabs--;
    PROBE(slab_empty, s->klass, s);
    STORE(&s->owner, HEAP_NOBODY);
    if (h->state != HEAP_LIVE || c->reserved || pm_config.purge_delay == 0) {
        slab_leaves(h, s);
        return;
    }
    spares_room(h);
    heap_keep(h, s);
}

void heap_shed(heap *h)
{
    spares_leave(h, 0);
    handful_drop(&h->handful);
}

void heap_accept(heap *h, slab *s)
{
    bin *b = &h->bins[s->klass];
    partial_push(b, s);
    STORE(&b->partial, s);
    slab_look_set(s, &pm_classes[s->klass]);
}

slab *heap_yield(heap *h, unsigned klass, heap *to)
{
    bin *b = &h->bins[klass];
    slab *s = b->partial;
    if (s) {
        partial_remove(b, s);
        h->handful.slabs--;
        slab_settle(s, to, klass);
    }
    return s;
}

/* ---- blocks from slabs to bins ---- */

slab *heap_take_spare(heap *h)
{
    slab *s = h->spare;
    if (s) {
        h->spare = s->next;
        h->spares--;
        h->spare_idle = false;
    }
    return s;
}

/* Where a slab is mostly free its blocks are put in order first: that costs as much as a few instructions each, and makes what is
 * allocated together lie together. */
static bool order_pays(const slab *s, const size_class *c) { return 4 * (slab_chained(s, c) + s->free) > c->per_slab; }

/* All that came back to an empty bin's slab, as it lies, to be touched by the program first. Its number, or 0. */
static size_t bin_take_chain(bin *b, slab *s, const size_class *c)
{
    size_t n = slab_chained(s, c);
    block *chain = s->chain;
    if (chain) {
        s->chain = NULL;
        slab_out_set(s, slab_out(s) + n);
        PROBE(splice_chain, s, n);
    } else {
        chain = slab_take_remote(s, &n);
        if (n)
            PROBE(splice_remote, s, n);
    }
    b->room -= (int32_t)n;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    b->free = chain;
    return n;
}

/* Blocks of a slab that lie in memory wholly: using them again costs no page fault. */
INLINE size_t slab_touched(const slab *s, const size_class *c)
{
    size_t first = slab_offset(s, c, 0);
    if (LIKELY(s->touched == SLAB_ROOM))
        return c->per_slab;
    return s->touched > first ? size_min((s->touched - first) * c->inverse >> 32, c->per_slab) : 0;
}

/* Fresh memory costs a page fault a page, needed or not: a third of what the bin had of it before, at most. */
static size_t bin_fresh(bin *b, const size_class *c, size_t most)
{
    size_t fresh = c->refill;
    if (b->pace >= PACE_MOST) {
        fresh <<= (b->pace - PACE_MOST) / PACE_FRESH;
        b->pace = (uint8_t)(b->pace + (b->pace < PACE_END));
    }
    return size_min(most, fresh);
}

INLINE bool slab_has_chain(const slab *s) { return s->chain || remote_count(LOAD(&s->remote)) > 0; }
INLINE size_t slab_free_touched(const slab *s, const size_class *c) { return s->free + slab_touched(s, c) - c->per_slab; }

/* The slab that is next: the first one, unless another of the next few has blocks that lie in memory, and this one has not. */
static NOINLINE slab *bin_choose(bin *b, const size_class *c)
{
    slab *s = b->partial;
    for (int n = 0; n < REFILL_SLABS; n++, s = s->next)
        if (slab_has_chain(s) || slab_free_touched(s, c) > 0) {
            STORE(&b->partial, s);
            return s;
        }
    return b->partial;
}

/* How many blocks of its bits: those in memory; and where these are few, and nothing came back that could be taken as it lies, fresh ones. */
static NOINLINE size_t bin_wants(bin *b, slab *s, const size_class *c, size_t most)
{
    size_t touched = slab_free_touched(s, c);
    if (touched < size_min(c->refill, most) && (b->free || !slab_has_chain(s)))
        touched = size_max(touched, bin_fresh(b, c, most));
    return slab_affordable(s, c, size_min(most, touched));
}

#define POPULATE_LEAST (16 * KIB)

/* Links are about to be written into fresh blocks, which touches each page: many of them at once cost less than a page fault each. */
static NOINLINE void slab_populate(const slab *s, const size_class *c, size_t taken)
{
    size_t page = os_page_size(), touched = s->free + (size_t)s->high - c->per_slab;
    uintptr_t high = (uintptr_t)slab_first(s, c) + s->high * (size_t)c->size, from = round_up(high, page);
    if (taken > touched && c->size <= page && !LOAD(&slab_unit(s)->unit_huge) && high + (taken - touched) * c->size >= from + POPULATE_LEAST)
        os_populate((void *)from, round_up(high + (taken - touched) * c->size - from, page));
}

/* Fills an empty bin from one slab; returns how many. What a handler freed into it meanwhile stays. */
static size_t bin_take(bin *b, slab *s, const size_class *c, size_t most)
{
    if (s->chain && order_pays(s, c)) {
        PROBE(chain_to_bits, s, slab_chained(s, c));
        slab_order(s, c);
    }
    size_t taken = LIKELY(s->touched == SLAB_ROOM) ? size_min(most, s->free) : bin_wants(b, s, c, most);
    if (UNLIKELY(pm_every_call_slow) && !taken) { /* which keep no blocks at hand */
        slab_gather(s, c, true);
        taken = slab_affordable(s, c, most);
    }
    if (!taken)
        return b->free || pm_every_call_slow ? 0 : bin_take_chain(b, s, c);
    if (s->state == SLAB_ZEROED && taken * c->size >= POPULATE_LEAST)
        slab_populate(s, c, taken);
    block *first = NULL, **end = &first;
    end = slab_take(s, c, end, taken);
    bin_prepend(b, first, end, taken);
    return taken;
}

/* Slabs that others gave back to which one slow path looks at, at most. */
#define HEARD 64
#define DEEPEST 2 /* doublings of what a bin keeps */

static bool slab_has_none(const slab *s) { return !s->free && !s->chain && remote_count(LOAD(&s->remote)) == 0; }

/* What is left of a slab is beyond the limit: it comes back to the list with the next block that comes home, unless all are. */
static COLD void slab_stops(heap *h, bin *b, slab *s)
{
    if (slab_is_home(s))
        slab_emptied(h, s);
    else
        partial_remove(b, s);
}

static void bin_refill(heap *h, bin *b, size_t most)
{
    const size_class *c = &pm_classes[b->klass];
    size_t taken = 0;
    for (int slabs = 0; slabs < REFILL_SLABS && taken < most && b->partial; slabs++) {
        slab *s = b->partial;
        s = LIKELY(s->touched == SLAB_ROOM || s->next == s) ? s : bin_choose(b, c);
        size_t n = bin_take(b, s, c, most - taken);
        taken += n;
        if (slab_has_none(s))
            partial_remove(b, s);
        else if (UNLIKELY(n == 0) && !b->free)
            slab_stops(h, b, s);
        else
            slab_look_set(s, c);
        if ((s->free && n) || (!s->free && !slab_has_none(s)))
            break; /* the bin is not empty: the chain waits */
    }
}

size_t heap_deal(heap *h, bin *b, block **blocks, size_t most)
{
    const size_class *c = &pm_classes[b->klass];
    slab *s = b->partial;
    size_t n = s ? slab_affordable(s, c, most) : 0;
    if (n == 0)
        return 0;
    slab_deal(s, c, blocks, n);
    h->rest.falls = 0;
    if (slab_has_none(s))
        partial_remove(b, s);
    else
        slab_look_set(s, c);
    return n;
}

#define SURPLUS_SLABS 32

/* Whether its slabs have as many free blocks as a whole one. O(32 slabs). */
bool bin_has_surplus(const bin *b)
{
    const size_class *c = &pm_classes[b->klass];
    const slab *s = b->partial;
    size_t free = 0;
    for (int n = 0; s && n < SURPLUS_SLABS && free < c->per_slab; n++) {
        free += c->per_slab - size_min(slab_out(s), c->per_slab);
        s = s->next == b->partial ? NULL : s->next;
    }
    return free >= c->per_slab;
}

void bin_limit_set(bin *b, size_t limit)
{
    b->room += (int32_t)limit - b->limit;
    b->limit = (uint16_t)limit;
}

/* What an empty bin keeps: twice as much as before where blocks went to a slab, and are wanted again. */
static size_t bin_depth(const bin *b, const size_class *c)
{
    if (b->limit == 0 || !b->partial || !b->partial->chain)
        return size_max(b->limit, c->limit); /* a fall has ended */
    return size_min((size_t)2 * b->limit, (size_t)c->limit << DEEPEST);
}

/* How many blocks an empty bin gets at once; the next time twice as many. */
static size_t bin_pace(heap *h, bin *b, const size_class *c)
{
    unsigned pace = b->pace < PACE_MOST ? b->pace : PACE_MOST;
    h->rest.falls = 0;
    if (pm_every_call_slow || h->rest.down)
        return 1;
    bin_limit_set(b, bin_depth(b, c));
    b->pace = (uint8_t)(b->pace + (pace < PACE_MOST));
    return size_max(((size_t)c->refill << pace) / PACE_FIRST, 1);
}

/* The bin's one slab has nothing but fresh memory, while the heap's last spare was the class's, and lies in memory. */
INLINE bool spare_lies_ready(const heap *h, const bin *b)
{
    const slab *s = b->partial, *spare = h->spare;
    return UNLIKELY(s->touched != SLAB_ROOM) && spare && s->next == s && spare->klass == b->klass && spare->touched == SLAB_ROOM &&
           !slab_has_chain(s) && slab_free_touched(s, &pm_classes[b->klass]) == 0;
}

block *heap_fill(heap *h, bin *b)
{
    if (b->free == NULL) {
        if (UNLIKELY(LOAD(&h->inbox) != NULL || h->told))
            heap_hear(h, HEARD);
        if (b->partial && !spare_lies_ready(h, b))
            bin_refill(h, b, bin_pace(h, b, &pm_classes[b->klass]));
    }
    return bin_pop(b);
}

/* Where the bin gets all that a slab has, no bit is set for it, and the slab is on no list. */
block *heap_begin(heap *h, bin *b, slab *s)
{
    const size_class *c = &pm_classes[b->klass];
    size_t most = bin_pace(h, b, c);
    learn_open(s, b->klass);
    STORE(&s->klass, b->klass);
    if (most >= c->per_slab && (slab_touched(s, c) == c->per_slab || bin_fresh(b, c, most) >= c->per_slab) &&
        depot_touch(s, slab_offset(s, c, c->per_slab))) {
        block *first = NULL, **end = slab_open_whole(s, c, &first);
        slab_settle(s, h, b->klass);
        bin_prepend(b, first, end, c->per_slab);
        PROBE(slab_whole, b->klass, s);
    } else {
        slab_open(s, c);
        slab_settle(s, h, b->klass);
        heap_accept(h, s);
        bin_refill(h, b, most);
    }
    return bin_pop(b);
}

block *heap_fill_zeroed(heap *h, bin *b)
{
    slab *s = b->partial;
    if (b->free || !s || s->state != SLAB_ZEROED || s->chain || remote_count(LOAD(&s->remote)))
        return NULL;
    const size_class *c = &pm_classes[b->klass];
    uint16_t high = s->high;
    block *p = heap_fill(h, b);
    if (!p || slab_of(p) != s)
        return p ? memset(p, 0, c->size) : NULL;
    size_t number = (size_t)((char *)p - slab_first(s, c)) / c->size;
    p->next = NULL;
    return number >= high ? p : (block *)memset(p, 0, c->size);
}

/* ---- blocks back to slabs ---- */

/* The lock is held by the heap's thread, or by who stands in for it. Others may not touch `left`, which it counts without the lock. */
static bool heap_is_mine(const heap *h) { return LOAD(&h->lock) == HEAP_MINE || h->state == HEAP_IDLE; }

/* A slab of this heap's that something came home to, or may have. True: all has, and it is taken away. */
INLINE bool slab_ended(heap *h, slab *s)
{
    if (!s->listed)
        partial_push(s->bin, s);
    if (LIKELY(!slab_is_home(s)))
        return false;
    slab_emptied(h, s);
    return true;
}

/* The same. True: it is near its end. */
INLINE bool slab_notice(heap *h, slab *s)
{
    return !slab_ended(h, s) && heap_is_mine(h) && slab_look_set(s, &pm_classes[s->klass]);
}

/* Those of one slab that a chain begins with, `most` at most, go to the slab's. Returns how many. */
static size_t chain_home(slab *s, block **chain, size_t most)
{
    const char *memory = slab_memory(s);
    block *first = *chain, *last, *p = first;
    size_t n = 0;
    do {
        last = p;
        p = p->next;
    } while (++n < most && (size_t)((char *)p - memory) < SLAB_SIZE);
    *chain = p;
    last->next = s->chain;
    s->chain = first;
    slab_out_set(s, slab_out(s) - n);
    return n;
}

/* Blocks at hand go to their slabs. With the heap's thread. */
void bin_home(heap *h, bin *b, size_t count)
{
    block *chain = bin_detach(b);
    while (count > 0 && chain) {
        slab *s = slab_of(chain);
        size_t n = chain_home(s, &chain, count);
        b->room += (int32_t)n;
        count -= n;
        slab_notice(h, s);
    }
    bin_attach(b, chain);
}

size_t heap_give_these(heap *h, block *const *blocks, size_t count)
{
    slab *s = slab_of(blocks[0]);
    size_t n = slab_give_these(s, &pm_classes[s->klass], blocks, count);
    slab_ended(h, s); /* and no word of its end: no free() there counts down to it */
    return n;
}

void heap_give(heap *h, block *p)
{
    slab *s = slab_of(p);
    p->next = NULL;
    slab_give(s, &pm_classes[s->klass], &p, 1);
    slab_notice(h, s);
}

bool heap_look(heap *h, slab *s)
{
    return LIKELY(LOAD(&s->home) == h && slab_in_use(s)) && slab_notice(h, s); /* else it became empty, and was taken away, before we came */
}

void heap_empty_bins(heap *h)
{
    for (unsigned c = 0; c < classes_count(); c++) {
        bin *b = &h->bins[c];
        bin_home(h, b, SIZE_MAX);
        if (!pm_every_call_slow)
            bin_limit_set(b, LOAD(&pm_classes[c].limit));
        b->pace = 0;
    }
    h->rest.down = false;
}

static void each_partial(heap *h, void (*visit)(heap *, slab *))
{
    for (unsigned c = 0; c < classes_count(); c++) {
        slab *s = h->bins[c].partial, *last = s ? s->prev : NULL;
        for (bool more = s != NULL; more;) {
            slab *next = s->next;
            more = s != last;
            visit(h, s);
            s = next;
        }
    }
}

static void partial_gather(heap *h, slab *s)
{
    if (s->chain || s->back || remote_count(LOAD(&s->remote)))
        slab_gather(s, &pm_classes[s->klass], true);
    if (slab_is_home(s))
        slab_emptied(h, s);
}

void heap_gather(heap *h) { each_partial(h, partial_gather); }

static void partial_sweep(heap *h, slab *s)
{
    if (slab_is_home(s))
        slab_emptied(h, s);
}

void heap_sweep(heap *h) { each_partial(h, partial_sweep); }

static void partial_recount(heap *h, slab *s)
{
    (void)h;
    slab_recount(s, &pm_classes[s->klass]);
}

static block *run_last(const block_run *r) { return (block *)(slab_memory(r->slab) + r->last); }

static void run_recount(block_run *r)
{
    uint16_t n = 1;
    for (const block *p = r->first; r->slab && p != run_last(r); p = p->next)
        n++;
    r->count = n;
}

void heap_recount(heap *h)
{
    for (block_run *r = h->runs[0]; r < h->runs[0] + RUNS; r++)
        run_recount(r);
    for (unsigned c = 0; c < classes_count(); c++)
        bin_recount(&h->bins[c]);
    each_partial(h, partial_recount);
}

/* ---- blocks to other heaps ---- */

uint32_t pm_tellers;

void slab_tell(slab *s)
{
    heap *home = LOAD(&s->home);
    if (!heap_is_real(home)) { /* it has left meanwhile, so that there is nothing to tell */
        __atomic_fetch_and(&s->remote, ~REMOTE_TOLD, __ATOMIC_RELAXED);
        return;
    }
    slab *head = LOAD(&home->inbox);
    do {
        s->told = head;
    } while (!__atomic_compare_exchange_n(&home->inbox, &head, s, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

/* In this order: a handler that comes in between and forks leaves its child a number that is too high, if any. */
static void tell_begin(void)
{
    pm_tells++;
    __atomic_fetch_add(&pm_tellers, 1, __ATOMIC_ACQ_REL);
}

static void tell_end(void)
{
    __atomic_fetch_sub(&pm_tellers, 1, __ATOMIC_RELEASE);
    pm_tells--;
}

void heap_tell(slab *s)
{
    tell_begin();
    if (!(__atomic_fetch_or(&s->remote, REMOTE_TOLD, __ATOMIC_ACQ_REL) & REMOTE_TOLD))
        slab_tell(s);
    tell_end();
}

void block_send(slab *s, void *p)
{
    tell_begin();
    if (slab_give_remote(s, p, p, 1))
        slab_tell(s);
    tell_end();
}

static void run_send(heap *h, block_run *r)
{
    slab *s = r->slab;
    PROBE(remote_flush, s->klass, r->count);
    STORE(&h->runs_sent, h->runs_sent + 1);
    STORE(&h->blocks_sent, h->blocks_sent + r->count);
    if (slab_give_remote(s, r->first, run_last(r), r->count))
        slab_tell(s);
    r->slab = NULL;
}

/* The run of s, or the one in whose place it begins: an empty one, else the longest. */
static block_run *run_find(heap *h, const slab *s)
{
    block_run *set = runs_of(h, s), *found = set;
    for (block_run *r = set; r < set + RUN_WAYS; r++) {
        if (r->slab == s)
            return r;
        if (found->slab && (!r->slab || r->count > found->count))
            found = r;
    }
    return found;
}

bool run_join(heap *h, slab *s, block *p)
{
    block_run *r = run_find(h, s);
    bool sends = r->slab && (r->slab != s || r->count >= r->most);
    if (sends)
        run_send(h, r);
    if (!r->slab)
        *r = (block_run){.slab = s, .last = (uint32_t)((char *)p - slab_memory(s)), .most = pm_classes[LOAD(&s->klass)].run};
    p->next = r->first;
    r->first = p;
    r->count++;
    h->posted = true;
    return sends;
}

void heap_flush(heap *h)
{
    if (!h->posted)
        return;
    for (block_run *r = h->runs[0]; r < h->runs[0] + RUNS; r++)
        if (r->slab)
            run_send(h, r);
    h->posted = false;
}

/* A slab that has moved on since it was told of is another heap's to look at. */
static void slab_heard(heap *h, slab *s)
{
    if (LOAD(&s->home) != h) {
        slab_tell(s);
        return;
    }
    __atomic_fetch_and(&s->remote, ~REMOTE_TOLD, __ATOMIC_ACQ_REL); /* told was read before another thread may write it */
    slab_notice(h, s);
}

void heap_hear(heap *h, size_t most)
{
    if (!h->told && LOAD(&h->inbox))
        h->told = __atomic_exchange_n(&h->inbox, NULL, __ATOMIC_ACQUIRE);
    for (; h->told && most > 0; most--) {
        slab *s = h->told;
        h->told = s->told;
        slab_heard(h, s);
    }
}

/* ---- check ---- */

static void partial_check(const slab *s, const heap *h, const bin *b, bool mine)
{
    if (LOAD(&s->home) != h || s->bin != b || s->klass != b->klass || !slab_in_use(s) || !s->listed)
        report_abort("check: slab %zu is on a list of heap %u, but is not its own", slab_index(s), h->number);
    slab_check(s, &pm_classes[s->klass], mine);
}

static COLD void link_wrong(const block *p, const size_class *c, const char *what)
{
    misuse_abort(&(misuse){.call = CALL_CHECK, .pointer = p, .what = what, .block = p, .bytes = c->size});
}

static size_t bin_length(const bin *b, const heap *h)
{
    size_t n = 0;
    for (const block *p = b->free; p; p = p->next, n++) {
        const slab *s = region_holds(p) ? slab_of(p) : NULL;
        const size_class *c = &pm_classes[b->klass];
        if (!s || LOAD(&s->home) != h || s->klass != b->klass || (size_t)((const char *)p - slab_first(s, c)) % c->size)
            link_wrong(p, c, "a link in a free block leads there: written to after it was freed");
        if (n > SLAB_BLOCKS_MAX)
            link_wrong(p, c, "free blocks link in a circle: double free");
    }
    return n;
}

static void bin_check(const heap *h, const bin *b, bool mine)
{
    const slab *s = b->partial;
    for (size_t n = 0; s && (n == 0 || s != b->partial); s = s->next, n++) {
        partial_check(s, h, b, mine);
        if (s->prev->next != s)
            report_abort("check: the partial list of heap %u is broken at slab %zu", h->number, slab_index(s));
    }
    if (mine && !PM_HARDENED && (int32_t)bin_length(b, h) != b->limit - b->room)
        report_abort("check: heap %u, %u-byte bin: room is %d of %u, but that is not what it holds", h->number,
                     pm_classes[b->klass].size, b->room, b->limit);
}

void heap_check(heap *h, bool mine)
{
    uint32_t spares = 0;
    for (unsigned c = 0; c < classes_count(); c++)
        bin_check(h, &h->bins[c], mine);
    for (const slab *s = h->spare; s; s = s->next, spares++)
        if (LOAD(&s->home) != HEAP_NOBODY || !slab_in_use(s))
            report_abort("check: slab %zu is a spare of heap %u, but not empty", slab_index(s), h->number);
    if (spares != h->spares)
        report_abort("check: heap %u: %u spares, %u counted", h->number, spares, h->spares);
}
