/* keeper.c: see keeper.h. */
#include "pools/keeper.h"

#include "ground/os.h"
#include "pools/slab.h"

#include <string.h>

keeper *pm_keepers[KEEPERS] RARE;

static void shape(keeper *k)
{
    for (unsigned c = 0; c < CLASS_MAX; c++) {
        size_t fit = QUARANTINE_BYTES / size_max(pm_classes[c].size, QUANTUM), half = QUARANTINE_BLOCKS / 2;
        k->least[c] = (uint16_t)size_min(size_max(fit, QUARANTINE_LEAST), half);
        k->most[c] = (uint16_t)(k->least[c] + size_min(size_max(fit, QUARANTINE_MORE), half));
    }
}

keeper *keeper_make(heap *h)
{
    size_t page = os_page_size(), bytes = round_up(sizeof(keeper), page);
    char *at = h->number < KEEPERS ? os_reserve(bytes + 2 * page) : NULL;
    if (!at || !os_commit(at + page, bytes))
        return NULL;
    keeper *k = (keeper *)(void *)(at + page);
    k->random = os_secret();
    k->thread = os_thread();
    shape(k);
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

/* What is kept of a class, but `keep` in quarantine, goes; as much of it as may. */
static void class_let(keeper *k, unsigned klass, size_t keep, size_t going)
{
    while (k->going_count < going && k->count[klass] > keep) {
        block *p = quarantine_pop(k, klass, k->count[klass]);
        if ((const void *)p == k->last) /* nothing is known of it from now on */
            k->last = NULL;
        k->going[k->going_count++] = p;
    }
    while (keep == 0 && k->going_count < going && k->held[klass] > 0) {
        STORE(&k->held[klass], (uint8_t)(k->held[klass] - 1));
        __atomic_signal_fence(__ATOMIC_RELEASE);
        k->going[k->going_count++] = k->hand[klass][k->held[klass]];
    }
}

/* Another thread may be forking: then they stay. In a fall another class goes with them. */
NOINLINE void keeper_send(keeper *k, heap *h)
{
    if (!heap_enter(h))
        return;
    going_give(k, h);
    if (k->falling >= FALL_BLOCKS) {
        class_let(k, k->calm++ % classes_count(), 0, GOING_BLOCKS);
        going_give(k, h);
    }
    heap_leave(h);
}

NOINLINE bool keeper_overflow(keeper *k, heap *h, block *p, unsigned klass)
{
    size_t n = k->count[klass];
    bool falls = k->falling >= FALL_BLOCKS;
    class_let(k, klass, falls ? FALL_KEEPS : k->least[klass], GOING_BLOCKS);
    n = k->count[klass];
    if (UNLIKELY(n >= k->most[klass])) { /* none may go, for as long as another thread forks */
        k->last = NULL;
        keeper_pass(p);
        return true;
    }
    k->quarantine[klass][(k->first[klass] + n) % QUARANTINE_BLOCKS] = p;
    __atomic_signal_fence(__ATOMIC_RELEASE);
    STORE(&k->count[klass], (uint16_t)(n + 1));
    h->bins[klass].room--;
    return k->going_count >= (falls ? FALL_GOING : GOING_BLOCKS);
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

void keeper_empty(heap *h)
{
    keeper *k = h->number < KEEPERS ? pm_keepers[h->number] : NULL;
    if (!k)
        return;
    k->last = NULL;
    k->thread = 0;
    keeper_collect_late(k, h);
    for (unsigned c = 0; c < classes_count(); c++) {
        do {
            going_give(k, h);
            class_let(k, c, 0, GOING_BLOCKS);
        } while (k->going_count > 0);
        bin_recount(&h->bins[c]); /* a fork may have come between a block and its count */
    }
}
