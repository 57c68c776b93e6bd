/* heap.c: layer 7. See heap.h; the states of a slab are drawn in docs/DESIGN.md. */
#include "heap.h"

#include "config.h"
#include "depot.h"
#include "text.h"

const char pm_no_heaps[CLASS_MAX * BIN_SIZE + 3 * HEAP_ID_BYTES] __attribute__((aligned(64)));

__thread heap *my_heap = HEAP_NONE;
bool pm_every_call_slow;

void heap_init(heap *h, uint32_t number)
{
    h->number = number;
    for (unsigned c = 0; c < pm_class_count; c++) {
        bin *b = &h->bins[c];
        b->klass = (uint16_t)c;
        b->limit = pm_every_call_slow ? 0 : pm_classes[c].limit;
        b->room = b->limit;
    }
}

/* ---- slabs of a heap ---- */

static void partial_push(bin *b, slab *s)
{
    s->prev = NULL;
    s->next = b->partial;
    if (s->next)
        s->next->prev = s;
    b->partial = s;
}

static void partial_remove(bin *b, slab *s)
{
    *(s->prev ? &s->prev->next : &b->partial) = s->next;
    if (s->next)
        s->next->prev = s->prev;
}

static void slab_settle(slab *s, heap *h, unsigned klass)
{
    STORE(&s->bin, &h->bins[klass]);
    STORE(&s->home, h);
    STORE(&s->owner, pm_every_call_slow ? HEAP_NOBODY : h);
}

void slab_open(slab *s, heap *h, unsigned klass)
{
    STORE(&s->klass, (uint16_t)klass);
    s->list = NULL;
    s->carved = 0;
    s->out = 0;
    slab_settle(s, h, klass);
}

/* The last block has come home. */
static void slab_emptied(heap *h, slab *s)
{
    bin *b = s->bin;
    partial_remove(b, s);
    if (b->active == s)
        b->active = NULL;
    s->state = SLAB_USED; /* what was carved no longer reads as zero */
    h->emptied++;
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
    if (s->list)
        partial_push(b, s);
    if (!b->active && s->carved < pm_classes[s->klass].per_slab)
        b->active = s;
}

slab *heap_yield(heap *h, unsigned klass, heap *to)
{
    bin *b = &h->bins[klass];
    slab *s = b->partial;
    if (s) {
        partial_remove(b, s);
        if (b->active == s)
            b->active = NULL;
    } else if ((s = b->active) != NULL) {
        b->active = NULL;
    } else {
        return NULL;
    }
    slab_settle(s, to, klass);
    return s;
}

/* ---- blocks from slabs to bins ---- */

/* The whole free list of a slab: O(1), however long. */
static void bin_take_list(bin *b)
{
    slab *s = b->partial;
    partial_remove(b, s);
    b->free = s->list;
    b->room -= s->carved - s->out;
    s->list = NULL;
    s->out = s->carved;
    if (!b->active && s->carved < pm_classes[b->klass].per_slab)
        b->active = s;
}

/* Only one block of it, where no bin may hold any. */
static void bin_take_one(bin *b)
{
    slab *s = b->partial;
    b->free = s->list;
    b->room--;
    s->list = s->list->next;
    s->out++;
    b->free->next = NULL;
    if (!s->list)
        partial_remove(b, s);
}

/* The next `count` blocks of the active slab, in ascending order. */
static void bin_carve(bin *b, size_t count)
{
    slab *s = b->active;
    const size_class *c = &pm_classes[b->klass];
    size_t n = size_min(count, c->per_slab - s->carved);
    char *first = slab_memory(s) + (size_t)s->carved * c->size, *at = first;
    for (size_t i = 1; i < n; i++, at += c->size)
        ((block *)at)->next = (block *)(at + c->size);
    ((block *)at)->next = b->free;
    b->free = (block *)first;
    b->room -= (int32_t)n;
    s->carved = (uint16_t)(s->carved + n);
    s->out = (uint16_t)(s->out + n);
    if (s->carved == c->per_slab)
        b->active = NULL;
}

static bool heap_open_spare(heap *h, bin *b)
{
    slab *s = h->spare;
    if (!s)
        return false;
    h->spare = s->next;
    h->spares--;
    h->spare_idle = false;
    slab_open(s, h, b->klass);
    b->active = s;
    return true;
}

block *heap_fill(heap *h, bin *b)
{
    if (b->free == NULL) {
        if (b->partial)
            pm_every_call_slow ? bin_take_one(b) : bin_take_list(b);
        else if (b->active || heap_open_spare(h, b))
            bin_carve(b, pm_every_call_slow ? 1 : pm_classes[b->klass].carve);
    }
    return bin_pop(b);
}

block *heap_carve_zeroed(heap *h, bin *b)
{
    (void)h;
    slab *s = b->active;
    if (!s || s->state != SLAB_ZEROED)
        return NULL;
    bin_carve(b, 1);
    block *p = bin_pop(b);
    p->next = NULL;
    return p;
}

/* ---- blocks back to slabs ---- */

void heap_give(heap *h, slab *s, block *p)
{
    if (!s->list)
        partial_push(s->bin, s);
    p->next = s->list;
    s->list = p;
    if (--s->out == 0)
        slab_emptied(h, s);
}

void heap_give_back(heap *h, bin *b, size_t count)
{
    for (block *p; count > 0 && (p = bin_pop(b)) != NULL; count--)
        heap_give(h, slab_of(p), p);
}

void heap_empty_bins(heap *h)
{
    os_lock_take(&h->lock);
    for (unsigned c = 0; c < CLASS_MAX; c++) {
        if (c == pm_class_count)
            c = CLASS_EXPLICIT;
        if (c >= CLASS_EXPLICIT && h->bins[c].limit == 0)
            break;
        heap_give_back(h, &h->bins[c], SIZE_MAX);
    }
    heap_unlock(h);
}

void heap_recount_bins(heap *h)
{
    for (unsigned c = 0; c < pm_class_count; c++) {
        bin *b = &h->bins[c];
        b->room = b->limit;
        for (block *p = b->free; p; p = p->next)
            b->room--;
    }
}

/* ---- messages ---- */

void heap_send(heap *to, block *chain)
{
    block *head = LOAD(&to->inbox);
    do {
        chain->next_message = head;
    } while (!__atomic_compare_exchange_n(&to->inbox, &head, chain, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

static void outbox_send(heap *h, outbox *o)
{
    heap_send(o->to, o->chain);
    h->messages_sent++;
    h->blocks_sent += o->count;
    *o = (outbox){.chain = NULL};
}

void heap_post(heap *h, heap *to, block *p, size_t size)
{
    outbox *o = &h->out[to->number % OUTBOXES];
    if (o->chain && o->to != to)
        outbox_send(h, o);
    o->to = to;
    p->next = o->chain;
    o->chain = p;
    o->count++;
    o->bytes += (uint32_t)size;
    if (o->count < OUTBOX_BLOCKS && o->bytes < OUTBOX_BYTES)
        return;
    *(o->count == OUTBOX_BLOCKS ? &h->sent_by_count : &h->sent_by_bytes) += 1;
    outbox_send(h, o);
}

void heap_flush(heap *h)
{
    for (outbox *o = h->out; o < h->out + OUTBOXES; o++)
        if (o->chain)
            outbox_send(h, o);
}

/* Every block goes to its slab, or, when the slab has moved on since it was sent, on to where that is now. */
static void message_take(heap *h, block *message)
{
    for (block *p = message, *next; p; p = next) {
        next = p->next;
        slab *s = slab_of(p);
        heap *home = LOAD(&s->home);
        if (LIKELY(home == h)) {
            heap_give(h, s, p);
        } else {
            p->next = NULL;
            heap_send(home, p);
        }
    }
}

bool heap_drain(heap *h, size_t messages)
{
    if (!h->pending) {
        if (!LOAD(&h->inbox))
            return false;
        h->pending = __atomic_exchange_n(&h->inbox, NULL, __ATOMIC_ACQUIRE);
    }
    for (; h->pending && messages > 0; messages--) {
        block *message = h->pending;
        h->pending = message->next_message;
        message_take(h, message);
    }
    return true;
}

/* ---- check ---- */

static size_t chain_length(const block *p, const slab *in, const heap *home)
{
    size_t n = 0;
    for (; p; p = p->next, n++) {
        if (!region_holds(p))
            report_abort("check: a free list leads to %p, outside of the pools", (const void *)p);
        const slab *s = slab_of(p);
        size_t offset = (size_t)((const char *)p - slab_memory(s)), size = pm_classes[s->klass].size;
        if ((in && s != in) || LOAD(&s->home) != home || offset % size != 0 || offset / size >= s->carved)
            report_abort("check: a free list leads to %p, which is no block of its slab", (const void *)p);
        if (n > SLAB_SIZE / QUANTUM)
            report_abort("check: a free list runs in a circle at %p: freed twice?", (const void *)p);
    }
    return n;
}

static void slab_check(const slab *s, const heap *h, const bin *b)
{
    size_t per_slab = pm_classes[s->klass].per_slab;
    if (LOAD(&s->home) != h || s->bin != b || s->klass != b->klass || !slab_in_use(s))
        report_abort("check: slab %zu is on a list of heap %u, but is not its own", slab_index(s), h->number);
    if (s->out > s->carved || s->carved > per_slab)
        report_abort("check: slab %zu: %u blocks out, %u carved, room for %zu", slab_index(s), s->out, s->carved, per_slab);
    size_t listed = chain_length(s->list, s, h);
    if (listed != (size_t)(s->carved - s->out))
        report_abort("check: slab %zu: %zu blocks listed, %u counted", slab_index(s), listed, s->carved - s->out);
}

static void bin_check(const heap *h, const bin *b, bool contents)
{
    for (const slab *s = b->partial, *before = NULL; s; before = s, s = s->next) {
        slab_check(s, h, b);
        if (s->prev != before || !s->list || s->out == 0)
            report_abort("check: slab %zu is on the partial list of heap %u, wrongly", slab_index(s), h->number);
    }
    if (b->active)
        slab_check(b->active, h, b);
    if (b->active && b->active->carved == pm_classes[b->klass].per_slab)
        report_abort("check: slab %zu is active, but carved to its end", slab_index(b->active));
    if (contents && (int32_t)chain_length(b->free, NULL, h) != b->limit - b->room)
        report_abort("check: heap %u, %u-byte bin: room is %d of %u, but that is not what it holds", h->number,
                     pm_classes[b->klass].size, b->room, b->limit);
}

void heap_check(heap *h, bool bins)
{
    uint32_t spares = 0;
    for (unsigned c = 0; c < pm_class_count; c++)
        bin_check(h, &h->bins[c], bins);
    for (const slab *s = h->spare; s; s = s->next, spares++)
        if (s->out != 0 || LOAD(&s->home) != h)
            report_abort("check: slab %zu is a spare of heap %u, but not empty", slab_index(s), h->number);
    if (spares != h->spares)
        report_abort("check: heap %u: %u spares, %u counted", h->number, spares, h->spares);
}
