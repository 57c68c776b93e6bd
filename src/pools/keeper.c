/* keeper.c: see keeper.h. */
#include "pools/keeper.h"

#include "ground/os.h"
#include "pools/slab.h"


void keeper_forget_last(keeper *k)
{
    static const uint64_t zeros[2];
    k->last = zeros;
}

static void shape(keeper *k)
{
    for (unsigned c = 0; c < CLASS_MAX; c++) {
        size_t fit = QUARANTINE_BYTES / size_max(pm_classes[c].size, QUANTUM), half = QUARANTINE_BLOCKS / 2;
        shelf *s = &k->shelves[c];
        s->bytes = (uint32_t)size_max(pm_classes[c].size, QUANTUM);
        s->room = (uint32_t)SLAB_ROOM - s->bytes;
        s->least = (uint16_t)size_min(size_max(fit, QUARANTINE_LEAST), half);
        s->most = (uint16_t)(s->least + size_min(size_max(fit, QUARANTINE_MORE), half));
        s->oldest = (uint16_t)size_min(s->least / 2 + 1, QUARANTINE_OLDEST);
    }
}

void keeper_restamp(keeper *k)
{
    if (k->thread == 0 || k->epoch != pm_registry.epoch) {
        k->thread = os_thread();
        k->epoch = pm_registry.epoch;
    }
    k->stamp = keeper_stamp((uint32_t)os_now_ms(), k->thread);
}

keeper *keeper_make(heap *h)
{
    size_t page = os_page_size(), bytes = round_up(sizeof(keeper), page);
    char *at = os_reserve(bytes + 2 * page);
    if (!at || !os_commit(at + page, bytes))
        return NULL;
    keeper *k = (keeper *)(void *)(at + page);
    k->random = os_secret() | 1;
    shape(k);
    keeper_forget_last(k);
    keeper_restamp(k);
    return h->keeper = k;
}

static void block_swap(block **a, block **b)
{
    block *p = *a;
    *a = *b;
    *b = p;
}

void keeper_deal(keeper *k, heap *h, unsigned klass, block **blocks, size_t n)
{
    shelf *s = &k->shelves[klass];
    for (size_t i = 0; i < n; i++)
        s->hand[n - 1 - i] = blocks[i];
    if (s->deals < RANDOM_DEALS) {
        s->deals++;
        for (size_t i = n; i > 1; i--)
            block_swap(&s->hand[i - 1], &s->hand[keeper_random_below(k, i)]);
    }
    s->held = (uint8_t)n;
    h->bins[klass].room -= (int32_t)n;
}

block *keeper_take_early(keeper *k, heap *h, unsigned klass)
{
    shelf *s = shelf_of(k, klass);
    size_t n = quarantine_count(s);
    if (n < 2)
        return NULL;
    h->bins[klass].room++;
    return quarantine_pop(k, s, size_min((n + 1) / 2, QUARANTINE_OLDEST));
}

/* ---- to the slabs ---- */

void keeper_pass(block *p) { block_send(slab_of(p), p); }

/* h is locked. */
static void going_give(keeper *k, heap *h)
{
    for (uint32_t i = 0, n; i < k->going_count; i += n) {
        slab *s = slab_of(k->going[i]);
        bin *b = &h->bins[s->klass];
        if (LOAD(&s->home) == h) {
            n = (uint32_t)heap_give_these(h, &k->going[i], k->going_count - i);
        } else {
            block_send(s, k->going[i]);
            n = 1;
        }
        b->room += (int32_t)n;
    }
    k->going_count = 0;
}

/* What is kept of a class, but `keep` in quarantine, goes, the oldest first; as much of it as may. A fork in between finds each in one
 * place, or in none. */
static void class_let(keeper *k, unsigned klass, size_t keep, size_t going)
{
    shelf *s = shelf_of(k, klass);
    size_t first = s->first, count = quarantine_count(s), n = count > keep ? size_min(count - keep, going - k->going_count) : 0;
    for (size_t i = 0; i < n; i++) {
        block *p = s->quarantine[(first + i) % QUARANTINE_BLOCKS];
        if ((const void *)p == k->last)
            keeper_forget_last(k);
        k->going[k->going_count + i] = p;
    }
    STORE(&s->first, (uint16_t)(first + n));
    __atomic_signal_fence(__ATOMIC_RELEASE);
    k->going_count += (uint32_t)n;
    while (keep == 0 && k->going_count < going && s->held > 0) {
        STORE(&s->held, (uint8_t)(s->held - 1));
        __atomic_signal_fence(__ATOMIC_RELEASE);
        k->going[k->going_count++] = s->hand[s->held];
    }
}

/* Another thread may be forking: then they stay. In a fall another class goes with them. */
NOINLINE void keeper_send(keeper *k, heap *h)
{
    if (!heap_enter(h))
        return;
    going_give(k, h);
    if (keeper_falls(k)) {
        class_let(k, k->calm++ % classes_count(), 0, GOING_BLOCKS);
        going_give(k, h);
    }
    heap_leave(h);
}

NOINLINE bool keeper_overflow(keeper *k, heap *h, block *p, unsigned klass)
{
    shelf *s = &k->shelves[klass];
    bool falls = keeper_falls(k);
    if (falls)
        k->until_fall = FALL_GOING - 1;
    class_let(k, klass, falls ? FALL_KEEPS : s->least, GOING_BLOCKS);
    if (UNLIKELY(quarantine_count(s) >= s->most)) { /* none may go, for as long as another thread forks */
        keeper_forget_last(k);
        keeper_pass(p);
        return true;
    }
    quarantine_push(s, &h->bins[klass], p);
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
    keeper *k = h->keeper;
    if (!k)
        return;
    keeper_forget_last(k);
    k->thread = 0; /* the heap's next one is not known until its first refill */
    k->stamp = keeper_stamp((uint32_t)os_now_ms(), 0);
    keeper_collect_late(k, h);
    for (unsigned c = 0; c < classes_count(); c++) {
        do {
            going_give(k, h);
            class_let(k, c, 0, GOING_BLOCKS);
        } while (k->going_count > 0);
        bin_recount(&h->bins[c]); /* a fork may have come between a block and its count */
    }
}
