/* shared.c: See shared.h. */
#include "preload/shared.h"

#include "ground/os.h"
#include "pools/registry.h"

#define REGRETS_MOST 64 /* remembered: a burst that nobody regrets is forgotten with the next look */
#define LIST_MOST (1 << 14) /* blocks of a list; where there are more, one was freed twice by two threads at once */

void kept_freed(const kept_block *p) { misuse_abort(&(misuse){.pointer = p, .what = "double free"}); }

void *kept_wrong(const kept_block *p)
{
    misuse_abort(&(misuse){.pointer = p, .what = "freed twice, or written to after it was freed"});
}

/* The last block of a list that is not empty; *n: how many. */
static kept_block *list_last(kept_block *p, unsigned *n)
{
    for (*n = 1; p->next; p = p->next)
        if (++*n > LIST_MOST)
            kept_wrong(p);
    return p;
}

unsigned list_move(kept_block **from, kept_block **to)
{
    unsigned n = 0;
    for (kept_block *p = LOAD(from) ? list_take(from) : NULL, *next; p; p = next, n++) {
        if (!kept_says(p, KEPT_HERE))
            kept_wrong(p);
        kept_say(p, KEPT_GONE);
        next = p->next;
        p->next = *to;
        *to = p;
    }
    return n;
}

/* What others put there meanwhile goes in front, so that only that is walked. */
static void list_return(kept_block **list, kept_block *first)
{
    for (kept_block *none = NULL; first && !__atomic_compare_exchange_n(list, &none, first, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED); none = NULL) {
        kept_block *newer = list_take(list);
        unsigned n;
        if (newer) {
            list_last(newer, &n)->next = first;
            first = newer;
        }
    }
}

static void list_push(kept_block **list, kept_block *p)
{
    kept_block *first = LOAD(list);
    kept_say(p, KEPT_HERE);
    do {
        p->next = first;
    } while (!__atomic_compare_exchange_n(list, &first, p, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

static kept_block *list_pop(kept_block **list)
{
    kept_block *p = LOAD(list) ? list_take(list) : NULL;
    if (p) {
        if (!kept_hand_out(p))
            kept_wrong(p);
        list_return(list, p->next);
    }
    return p;
}

static int32_t add(int32_t *to, int32_t n) { return __atomic_add_fetch(to, n, __ATOMIC_RELAXED); }

static void blocks_add(unsigned c, int32_t n)
{
    add(&pm_shared.bin[c].blocks, n);
    __atomic_add_fetch(&pm_shared.bytes, n * (int64_t)kept_size(c), __ATOMIC_RELAXED);
}

static unsigned list_count(kept_block **list)
{
    kept_block *first = LOAD(list) ? list_take(list) : NULL;
    unsigned n = 0;
    if (first) {
        list_last(first, &n);
        list_return(list, first);
    }
    return n;
}

static void lists_recount(unsigned c)
{
    shared_bin *b = &pm_shared.bin[c];
    blocks_add(c, (int32_t)(list_count(&b->fresh) + list_count(&b->old)) - LOAD(&b->blocks));
}

void shared_forked(void)
{
    uint64_t signals = os_signals_hold();
    for (unsigned c = 0; c < KEPT_BINS; c++)
        if (LOAD(&pm_shared.bin[c].blocks))
            lists_recount(c);
    os_signals_release(signals);
}

/* A handler that came in between two steps may have forked: in its child both were counted, or none. */
static void lists_counted(unsigned c, int32_t n, uint32_t epoch)
{
    blocks_add(c, n);
    if (UNLIKELY(LOAD(&pm_registry.epoch) != epoch))
        lists_recount(c);
}

static void lists_push(unsigned c, kept_block *p)
{
    uint32_t epoch = LOAD(&pm_registry.epoch);
    list_push(&pm_shared.bin[c].fresh, p);
    lists_counted(c, 1, epoch);
}

bool shared_put(unsigned c, kept_block *p)
{
    shared_bin *b = &pm_shared.bin[c];
    if (LOAD(&b->blocks) >= LOAD(&b->limit))
        return false; /* or a few more, if threads come at once */
    lists_push(c, p);
    return true;
}

static kept_block *lists_pop(unsigned c)
{
    if (LOAD(&pm_shared.bin[c].blocks) <= 0)
        return NULL; /* or one that just comes */
    uint32_t epoch = LOAD(&pm_registry.epoch);
    kept_block *p = list_pop(&pm_shared.bin[c].fresh);
    p = p ? p : list_pop(&pm_shared.bin[c].old);
    if (p)
        lists_counted(c, -1, epoch);
    return p;
}

kept_block *shared_take(unsigned c)
{
    kept_block *p = lists_pop(c);
    return p ? p : lists_pop(c + 1);
}

void shared_raise(unsigned c) { add(&pm_shared.bin[c].limit, 1); }

void shared_admit(unsigned c, kept_block *p)
{
    shared_raise(c);
    lists_push(c, p);
}

void shared_given(unsigned c)
{
    if (LOAD(&pm_shared.bin[c].given) < REGRETS_MOST)
        add(&pm_shared.bin[c].given, 1);
}

bool shared_regret(unsigned c) { return LOAD(&pm_shared.bin[c].given) > 0 && add(&pm_shared.bin[c].given, -1) >= 0; }

static uint32_t bin_lower(unsigned c, int32_t gone, int32_t unused, uint32_t epoch)
{
    lists_counted(c, -gone, epoch);
    add(&pm_shared.bin[c].limit, -gone - unused);
    return (uint32_t)(gone + unused);
}

static int32_t bin_room(const shared_bin *b)
{
    int32_t room = LOAD(&b->limit) - LOAD(&b->blocks);
    return room > 0 ? room : 0;
}

uint32_t shared_look(unsigned c, kept_block **to)
{
    shared_bin *b = &pm_shared.bin[c];
    uint32_t epoch = LOAD(&pm_registry.epoch);
    bool quiet = !LOAD(&b->fresh) && LOAD(&b->given) <= 0;
    int32_t gone = (int32_t)list_move(&b->old, to);
    list_return(&b->old, list_take(&b->fresh));
    STORE(&b->given, 0);
    return bin_lower(c, gone, quiet ? (bin_room(b) + 1) / 2 : 0, epoch);
}

uint32_t shared_empty(unsigned c, kept_block **to)
{
    shared_bin *b = &pm_shared.bin[c];
    uint32_t epoch = LOAD(&pm_registry.epoch);
    int32_t gone = (int32_t)(list_move(&b->old, to) + list_move(&b->fresh, to));
    STORE(&b->given, 0);
    return bin_lower(c, gone, bin_room(b), epoch);
}
