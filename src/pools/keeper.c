/* keeper.c: see keeper.h. */
#include "pools/keeper.h"

#include "ground/os.h"
#include "pools/slab.h"

#include <string.h>

keeper *pm_keepers[KEEPERS] RARE;

keeper *keeper_make(heap *h)
{
    size_t page = os_page_size(), bytes = round_up(sizeof(keeper), page);
    char *at = h->number < KEEPERS ? os_reserve(bytes + 2 * page) : NULL;
    if (!at || !os_commit(at + page, bytes))
        return NULL;
    keeper *k = (keeper *)(void *)(at + page);
    k->random = os_secret();
    k->thread = os_thread();
    return pm_keepers[h->number] = k;
}

static void block_swap(block **a, block **b)
{
    block *p = *a;
    *a = *b;
    *b = p;
}

void keeper_deal(keeper *k, heap *h, unsigned klass, block **blocks, size_t n)
{
    block **hand = k->hand[klass];
    for (size_t i = 0; i < n; i++)
        hand[n - 1 - i] = blocks[i];
    if (k->deals[klass] < RANDOM_DEALS) {
        k->deals[klass]++;
        for (size_t i = n; i > 1; i--)
            block_swap(&hand[i - 1], &hand[keeper_random(k, i)]);
    }
    k->held[klass] = (uint8_t)n;
    h->bins[klass].room -= (int32_t)n;
}

/* ---- to the slabs ---- */

void keeper_pass(block *p) { block_send(slab_of(p), p); }

/* h is locked. */
static void going_give(keeper *k, heap *h)
{
    for (uint32_t i = 0; i < k->going_count; i++) {
        slab *s = slab_of(k->going[i]);
        h->bins[s->klass].room++;
        if (LOAD(&s->home) == h)
            heap_give(h, k->going[i]);
        else
            block_send(s, k->going[i]);
    }
    k->going_count = 0;
}

/* In a fall what is at hand goes too, a class at a time. */
static void hand_let(keeper *k)
{
    unsigned c = k->calm++ % classes_count();
    while (k->held[c] > 0 && k->going_count < FALL_GOING - 1)
        k->going[k->going_count++] = k->hand[c][--k->held[c]];
}

static void going_add(keeper *k, heap *h, block *p)
{
    k->going[k->going_count++] = p;
    if (k->going_count >= (k->falling < FALL_BLOCKS ? GOING_BLOCKS : FALL_GOING))
        going_give(k, h);
}

/* The handler may be interrupted by another one, and the thread by either: the count changes last, and by one. */
void keeper_late(keeper *k, block *p)
{
    uint32_t n = k->late_count;
    if (n == LATE_BLOCKS)
        return;
    k->late[n] = p;
    if (!__atomic_compare_exchange_n(&k->late_count, &n, n + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        keeper_late(k, p);
}

void keeper_collect_late(keeper *k, heap *h)
{
    for (uint32_t n = k->late_count; n > 0; n = k->late_count) {
        block *p = k->late[n - 1];
        if (__atomic_compare_exchange_n(&k->late_count, &n, n - 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            keeper_quarantine(k, h, p, slab_of(p)->klass);
    }
}

/* ---- quarantine ---- */

static block **quarantine_at(keeper *k, size_t i) { return &k->quarantine[(k->first + i) % QUARANTINE_BLOCKS]; }

/* One of the oldest, never the newest. */
static block *quarantine_pop(keeper *k)
{
    block_swap(quarantine_at(k, 0), quarantine_at(k, keeper_random(k, size_max(1, size_min(k->count / 2, QUARANTINE_OLDEST)))));
    block *p = k->quarantine[k->first++ % QUARANTINE_BLOCKS];
    k->count--;
    k->bytes -= pm_classes[slab_of(p)->klass].size;
    return p;
}

/* The oldest goes on: the heap's own to hand, where there is room. */
static void quarantine_let(keeper *k, heap *h)
{
    block *p = quarantine_pop(k);
    const slab *s = slab_of(p);
    unsigned klass = s->klass;
    bool falls = k->falling >= FALL_BLOCKS;
    if (falls || LOAD(&s->home) != h || k->held[klass] >= keeper_most(&pm_classes[klass])) {
        going_add(k, h, p);
        if (falls && k->going_count == 0)
            hand_let(k);
        return;
    }
    k->hand[klass][k->held[klass]++] = p;
}

void keeper_quarantine(keeper *k, heap *h, block *p, unsigned klass)
{
    if (k->count == QUARANTINE_BLOCKS)
        quarantine_let(k, h);
    k->quarantine[(k->first + k->count++) % QUARANTINE_BLOCKS] = p;
    k->bytes += pm_classes[klass].size;
    h->bins[klass].room--;
    size_t most = ++k->falling < FALL_BLOCKS ? QUARANTINE_BLOCKS : FALL_KEEPS;
    while ((k->bytes > QUARANTINE_BYTES && k->count > 1) || k->count > most)
        quarantine_let(k, h);
}

void keeper_empty(heap *h)
{
    keeper *k = h->number < KEEPERS ? pm_keepers[h->number] : NULL;
    if (!k)
        return;
    k->last = NULL;
    k->thread = 0;
    keeper_collect_late(k, h);
    while (k->count)
        going_add(k, h, quarantine_pop(k));
    for (unsigned c = 0; c < classes_count(); c++)
        while (k->held[c])
            going_add(k, h, k->hand[c][--k->held[c]]);
    going_give(k, h);
}
