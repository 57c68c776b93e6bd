/* heap.c: See heap.h; the states of a slab are drawn in docs/DESIGN.md. */
#include "pools/heap.h"

#include "ground/config.h"
#include "pools/depot.h"
#include "pools/slab.h"
#include "ground/text.h"

#include <string.h>

/* Not in the file, for all that it is constant: pages of zeros that are only read take no memory (unless mlockall makes them). */
char pm_no_heaps[NO_HEAPS_BYTES] RARE __attribute__((aligned(64)));
static_assert(NO_HEAPS_BYTES % sizeof(uint64_t) == 0, "");

__thread heap *my_heap = HEAP_NONE, *pm_lent;
__thread int64_t pm_unwatched;
/* For the inline ways of poolmalloc.h. */
extern __thread heap *pm_thread __attribute__((alias("my_heap"), visibility("default"), tls_model("initial-exec")));

void heap_init(heap *h, uint32_t number)
{
    h->number = number;
    h->budget = BIN_BUDGET;
    for (unsigned c = 0; c < pm_class_count; c++) {
        bin *b = &h->bins[c];
        b->klass = (uint8_t)c;
        uint16_t limit = pm_every_call_slow ? 0 : pm_classes[c].limit;
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

/* ---- slabs of a heap ---- */

static void partial_push(bin *b, slab *s)
{
    slab *first = b->partial;
    if (!first) {
        b->partial = s->next = s->prev = s;
        return;
    }
    s->next = first;
    s->prev = first->prev;
    s->prev->next = s;
    first->prev = s;
}

static void partial_remove(bin *b, slab *s)
{
    s->prev->next = s->next;
    s->next->prev = s->prev;
    if (b->partial == s)
        b->partial = s->next == s ? NULL : s->next;
}

static void slab_settle(slab *s, heap *h, unsigned klass)
{
    STORE(&s->bin, &h->bins[klass]);
    STORE(&s->home, h);
    STORE(&s->owner, pm_every_call_slow ? HEAP_NOBODY : h);
}

void heap_open_slab(heap *h, slab *s, unsigned klass)
{
    STORE(&s->klass, (uint16_t)klass);
    slab_open(s, &pm_classes[klass]);
    slab_settle(s, h, klass);
}

/* The last block has come home. */
static void slab_emptied(heap *h, slab *s)
{
    partial_remove(s->bin, s);
    slab_close(s, &pm_classes[s->klass]);
    PROBE(slab_empty, s->klass, s);
    bool keep = h->spares < SPARES && h->state == HEAP_LIVE && !pm_classes[s->klass].reserved && pm_config.purge_delay > 0;
    slab **to = keep ? &h->spare : &h->leaving;
    s->next = *to;
    *to = s;
    h->spares += keep;
}

void heap_shed(heap *h)
{
    while (h->spare) {
        slab *s = h->spare;
        h->spare = s->next;
        s->next = h->leaving;
        h->leaving = s;
    }
    h->spares = 0;
}

void heap_unlock(heap *h)
{
    slab *leaving = h->leaving;
    h->leaving = NULL;
    os_lock_give(&h->lock);
    if (UNLIKELY(leaving != NULL))
        depot_put(leaving);
}

void heap_accept(heap *h, slab *s)
{
    bin *b = &h->bins[s->klass];
    partial_push(b, s);
    b->partial = s;
}

slab *heap_yield(heap *h, unsigned klass, heap *to)
{
    bin *b = &h->bins[klass];
    slab *s = b->partial;
    if (s) {
        partial_remove(b, s);
        slab_settle(s, to, klass);
    }
    return s;
}

/* ---- blocks from slabs to bins ---- */

static bool heap_open_spare(heap *h, bin *b)
{
    slab *s = h->spare;
    if (!s)
        return false;
    h->spare = s->next;
    h->spares--;
    h->spare_idle = false;
    heap_open_slab(h, s, b->klass);
    partial_push(b, s);
    return true;
}

/* Bytes that a bin of this limit may keep beyond its class's. */
static size_t bin_growth(const bin *b, size_t limit)
{
    const size_class *c = &pm_classes[b->klass];
    return (size_max(limit, c->limit) - c->limit) * c->size;
}

/* To no less than it holds. Room beyond its class's limit comes out of the heap's budget; where too little is left it stays. */
static void bin_resize(heap *h, bin *b, size_t limit)
{
    size_t had = bin_growth(b, b->limit), wants = bin_growth(b, limit);
    if (wants > had + h->budget)
        return;
    h->budget = (uint32_t)(h->budget + had - wants);
    b->room += (int32_t)limit - b->limit;
    b->limit = (uint16_t)limit;
}

/* The bin is empty; one that was full and empty in turn grows: that would have saved both ways to the slabs. */
static void bin_grow(heap *h, bin *b)
{
    b->spills = 0;
    size_t limit = pm_classes[b->klass].limit;
    bin_resize(h, b, size_min(size_max(2 * (size_t)b->limit, limit), BIN_GROWTH * limit));
}

static void bin_ungrow(heap *h, bin *b, size_t limit)
{
    if (b->limit > limit)
        bin_resize(h, b, limit);
}

/* The chain is made aside: a signal handler that comes meanwhile finds the bin empty. */
static void bin_refill(bin *b, size_t most)
{
    const size_class *c = &pm_classes[b->klass];
    block *first = NULL, **end = &first;
    size_t taken = 0;
    for (int slabs = 0; slabs < REFILL_SLABS && taken < most && b->partial; slabs++) {
        slab *s = b->partial;
        size_t before = s->out;
        end = slab_take(s, c, end, most - taken);
        taken += s->out - before;
        if (slab_is_full(s, c))
            partial_remove(b, s);
    }
    bin_prepend(b, first, end, taken);
}

block *heap_fill(heap *h, bin *b)
{
    if (UNLIKELY(b->spills) && b->free == NULL)
        bin_grow(h, b);
    if (b->free == NULL && (b->partial || heap_open_spare(h, b)))
        bin_refill(b, pm_every_call_slow ? 1 : pm_classes[b->klass].refill);
    return bin_pop(b);
}

block *heap_fill_zeroed(heap *h, bin *b)
{
    slab *s = b->partial;
    if (b->free || !s || s->state != SLAB_ZEROED)
        return NULL;
    uint16_t high = s->high;
    block *p = heap_fill(h, b);
    size_t number = (size_t)((char *)p - slab_first(s, &pm_classes[b->klass])) / pm_classes[b->klass].size;
    p->next = NULL;
    return number >= high ? p : (block *)memset(p, 0, pm_classes[b->klass].size);
}

/* ---- blocks back to slabs ---- */

/* Up to count blocks of one slab that the chain begins with. */
static size_t give_run(heap *h, block **chain, size_t count)
{
    slab *s = slab_of(*chain);
    const size_class *c = &pm_classes[s->klass];
    bool was_full = slab_is_full(s, c);
    size_t n = slab_give(s, c, chain, count);
    if (was_full)
        partial_push(s->bin, s);
    if (s->out == 0)
        slab_emptied(h, s);
    return n;
}

void heap_give(heap *h, block *p)
{
    p->next = NULL;
    give_run(h, &p, 1);
}

/* Neighbours in the bin are often of one slab: its counters are brought up to date once for all of them. */
void heap_give_back(heap *h, bin *b, size_t count)
{
    block *chain = bin_detach(b);
    while (count > 0 && chain) {
        size_t n = give_run(h, &chain, count);
        b->room += (int32_t)n;
        count -= n;
    }
    bin_attach(b, chain);
}

#define PINS_LOOK 16
#define PINS_PART 32
#define FULLER 16 /* blocks in a row that go to slabs four times as full as that end the end of a fall */
static_assert(FALL_SPILLS + FULLER <= UINT8_MAX, "spills holds it");

static size_t little(const size_class *c) { return size_max(c->per_slab / PINS_PART, 1); }

/* Whether most blocks, by the first ones, lie each in a slab of which little else is in use: they are why it is kept. */
static bool chain_pins(const block *p, const size_class *c)
{
    size_t seen = 0, pins = 0;
    const slab *last = NULL;
    for (; p && seen < PINS_LOOK; p = p->next, seen++) {
        const slab *s = slab_of(p);
        pins += s != last && s->out <= little(c);
        last = s;
    }
    return 2 * pins > seen;
}

static bool bin_pins(bin *b, const size_class *c)
{
    block *chain = bin_detach(b);
    bool pins = chain_pins(chain, c);
    bin_attach(b, chain);
    return pins;
}

/* Half of the blocks; when the thread has only freed for a while all of them, and the bin gets small: each block at hand may
 * be the last one of a slab. Where most are, near the end of the fall, it keeps none, and every free comes here until the next
 * malloc has filled it, or slabs are fuller again: a program that then rests comes to no slow path again. No more at once than
 * bounds the call's work. */
void heap_spill(heap *h, bin *b, const slab *last)
{
    if (LIKELY(b->spills < FALL_SPILLS)) {
        b->spills++;
        heap_give_back(h, b, size_min(b->limit / 2, SPILL_BLOCKS));
        return;
    }
    const size_class *c = &pm_classes[b->klass];
    size_t keep = c->size > 128 ? c->refill : c->limit;
    if (b->limit == 0) {
        b->spills = last->out > 4 * little(c) ? b->spills + 1 : FALL_SPILLS;
        if (b->spills < FALL_SPILLS + FULLER)
            return;
        b->spills = FALL_SPILLS;
        bin_resize(h, b, keep);
        return;
    }
    if (bin_pins(b, c))
        keep = 0;
    heap_give_back(h, b, BIN_BLOCKS);
    bin_ungrow(h, b, size_max(b->limit - (size_t)b->room, keep));
}

void heap_calm_bin(heap *h, bin *b)
{
    if (b->free && b->free == b->seen)
        heap_give_back(h, b, BIN_BLOCKS);
    if (!b->free)
        bin_ungrow(h, b, pm_classes[b->klass].limit);
    b->seen = b->free;
}

/* ---- pages between blocks in use ---- */

/* Bytes that a slab's blocks in use take, each a page at least; more than is known of one that no heap has. */
static PEEKS size_t slab_holds(const slab *s)
{
    if (!slab_in_use(s) && s->state != SLAB_WAITING)
        return 0;
    if (LOAD(&s->home) == HEAP_POOL || s->state == SLAB_WAITING || s->klass >= pm_class_count)
        return SLAB_SIZE;
    return size_min(s->out * size_max(pm_classes[s->klass].size, 4 * KIB), SLAB_SIZE);
}

/* A guess: other heaps' slabs change meanwhile. */
static PEEKS bool unit_is_sparse(const slab *unit)
{
    size_t bytes = 0;
    for (const slab *s = unit; s < unit + UNIT_SLABS; s++)
        bytes += slab_holds(s);
    return bytes <= UNIT_SIZE / 8;
}

/* What another thread has opened, but not accepted yet, has nothing out. */
PEEKS size_t heap_purge(slab *s)
{
    const size_class *c = &pm_classes[s->klass];
    if (s->out == 0 || slab_is_full(s, c) || s->trimmed || (c->reserved && (pm_config.prefault || pm_config.lock)))
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

void heap_empty_bins(heap *h)
{
    os_lock_take(&h->lock);
    for (unsigned c = 0; c < pm_class_count; c++) {
        bin *b = &h->bins[c];
        heap_give_back(h, b, SIZE_MAX);
        b->spills = 0;
        if (!pm_every_call_slow)
            bin_resize(h, b, pm_classes[c].limit);
    }
    heap_unlock(h);
}

void heap_recount_bins(heap *h)
{
    for (unsigned c = 0; c < pm_class_count; c++)
        bin_recount(&h->bins[c]);
}

/* ---- messages ---- */

void heap_send(heap *to, block *chain)
{
    block *head = LOAD(&to->inbox);
    do {
        chain->next_message = head;
    } while (!__atomic_compare_exchange_n(&to->inbox, &head, chain, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

static NOINLINE void outbox_send(heap *h, outbox *o)
{
    PROBE(remote_flush, o->to->number, o->count);
    heap_send(o->to, o->chain);
    h->messages_sent++;
    h->blocks_sent += o->count;
    *o = (outbox){.chain = NULL};
}

/* o was changed; it is sent when full. */
void heap_post_rest(heap *h, outbox *o, heap *to, block *p, size_t size)
{
    if (o->chain && o->to != to)
        outbox_send(h, o);
    o->to = to;
    outbox_add(o, p, size);
    if (!outbox_is_full(o))
        return;
    outbox_send(h, o);
}

void heap_flush(heap *h)
{
    for (outbox *o = h->out; o < h->out + OUTBOXES; o++)
        if (o->chain)
            outbox_send(h, o);
}

/* By the heap's own thread, into the bin while that has room: the slab's bits and counters are not touched. */
static void block_take(heap *h, slab *s, block *p)
{
    bin *b = s->bin;
    if (h == heap_mine() && LIKELY(b->room > 0))
        bin_push(b, p);
    else
        heap_give(h, p);
}

/* Every block comes home, or, when its slab has moved on since it was sent, goes on to where that is now. Returns how many
 * there were. */
static size_t message_take(heap *h, block *message)
{
    size_t n = 0;
    for (block *p = message, *next; p; p = next, n++) {
        next = p->next;
        slab *s = slab_of(p);
        heap *home = LOAD(&s->home);
        if (LIKELY(home == h)) {
            block_take(h, s, p);
        } else {
            p->next = NULL;
            heap_send(home, p);
        }
    }
    return n;
}

bool heap_drain(heap *h, size_t blocks)
{
    if (!h->pending) {
        if (!LOAD(&h->inbox))
            return false;
        h->pending = __atomic_exchange_n(&h->inbox, NULL, __ATOMIC_ACQUIRE);
    }
    while (h->pending && blocks > 0) {
        block *message = h->pending;
        h->pending = message->next_message;
        blocks -= size_min(blocks, message_take(h, message));
    }
    return true;
}

/* ---- check ---- */

static void partial_check(const slab *s, const heap *h, const bin *b)
{
    if (LOAD(&s->home) != h || s->bin != b || s->klass != b->klass || !slab_in_use(s))
        report_abort("check: slab %zu is on a list of heap %u, but is not its own", slab_index(s), h->number);
    slab_check(s, &pm_classes[s->klass]);
    if (s->out == 0 || slab_is_full(s, &pm_classes[s->klass]))
        report_abort("check: slab %zu is on a partial list with %u blocks out", slab_index(s), s->out);
}

static size_t bin_length(const bin *b, const heap *h)
{
    size_t n = 0;
    for (const block *p = b->free; p; p = p->next, n++) {
        const slab *s = region_holds(p) ? slab_of(p) : NULL;
        const size_class *c = &pm_classes[b->klass];
        if (!s || LOAD(&s->home) != h || s->klass != b->klass || (size_t)((const char *)p - slab_first(s, c)) % c->size)
            report_abort("check: a bin of heap %u holds %p, which is no block of it", h->number, (const void *)p);
        if (n > SLAB_BLOCKS_MAX)
            report_abort("check: a bin of heap %u runs in a circle at %p: freed twice?", h->number, (const void *)p);
    }
    return n;
}

void heap_check_links(void)
{
    const heap *h = my_heap;
    for (unsigned c = 0; heap_is_real(h) && !h->inside && c < pm_class_count; c++)
        bin_length(&h->bins[c], h);
}

static void bin_check(const heap *h, const bin *b, bool contents)
{
    const slab *s = b->partial;
    for (size_t n = 0; s && (n == 0 || s != b->partial); s = s->next, n++) {
        partial_check(s, h, b);
        if (s->prev->next != s)
            report_abort("check: the partial list of heap %u is broken at slab %zu", h->number, slab_index(s));
    }
    if (contents && !PM_HARDENED && (int32_t)bin_length(b, h) != b->limit - b->room)
        report_abort("check: heap %u, %u-byte bin: room is %d of %u, but that is not what it holds", h->number,
                     pm_classes[b->klass].size, b->room, b->limit);
}

void heap_check(heap *h, bool bins)
{
    uint32_t spares = 0;
    size_t budget = h->budget;
    for (unsigned c = 0; c < pm_class_count; c++) {
        bin_check(h, &h->bins[c], bins);
        budget += bin_growth(&h->bins[c], h->bins[c].limit);
    }
    if (budget != BIN_BUDGET)
        report_abort("check: heap %u: its bins and its budget come to %zu bytes", h->number, budget);
    for (const slab *s = h->spare; s; s = s->next, spares++)
        if (s->out != 0 || LOAD(&s->home) != h)
            report_abort("check: slab %zu is a spare of heap %u, but not empty", slab_index(s), h->number);
    if (spares != h->spares)
        report_abort("check: heap %u: %u spares, %u counted", h->number, spares, h->spares);
}
