/* shared.c: See shared.h. */
#include "preload/shared.h"

#define REGRETS_MOST 64 /* remembered: a burst that nobody regrets is forgotten with the next look */
#define LIST_MOST (1 << 14) /* blocks of a list; where there are more, one was freed twice */

void large_twice(const void *p)
{
    misuse_abort(&(misuse){.pointer = p, .what = "double free"});
}

/* The last block of a list that is not empty. */
static block *list_last(block *p)
{
    for (unsigned n = 0; p->next; p = p->next)
        if (++n > LIST_MOST)
            large_twice(p);
    return p;
}

unsigned list_move(block **from, block **to)
{
    unsigned n = 0;
    for (block *p = LOAD(from) ? list_take(from) : NULL, *next; p; p = next) {
        next = p->next;
        p->next = *to;
        *to = p;
        if (++n > LIST_MOST)
            large_twice(p);
    }
    return n;
}

/* What others put there meanwhile goes in front, so that only that is walked. */
static void list_return(block **list, block *first)
{
    for (block *none = NULL; first && !__atomic_compare_exchange_n(list, &none, first, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED); none = NULL) {
        block *newer = list_take(list);
        if (newer) {
            list_last(newer)->next = first;
            first = newer;
        }
    }
}

static void list_push(block **list, block *p)
{
    block *first = LOAD(list);
    do {
        if (UNLIKELY(first == p))
            large_twice(p);
        p->next = first;
    } while (!__atomic_compare_exchange_n(list, &first, p, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

static block *list_pop(block **list)
{
    block *p = LOAD(list) ? list_take(list) : NULL;
    if (p)
        list_return(list, p->next);
    return p;
}

static int32_t add(int32_t *to, int32_t n) { return __atomic_add_fetch(to, n, __ATOMIC_RELAXED); }

static void blocks_add(unsigned c, int32_t n)
{
    add(&pm_shared.bin[c].blocks, n);
    __atomic_add_fetch(&pm_shared.bytes, n * (int64_t)kept_size(c), __ATOMIC_RELAXED);
}

bool shared_put(unsigned c, block *p)
{
    shared_bin *b = &pm_shared.bin[c];
    if (LOAD(&b->blocks) >= LOAD(&b->limit))
        return false; /* or a few more, if threads come at once */
    blocks_add(c, 1);
    list_push(&b->fresh, p);
    return true;
}

static block *bin_pop(unsigned c)
{
    block *p = list_pop(&pm_shared.bin[c].fresh);
    p = p ? p : list_pop(&pm_shared.bin[c].old);
    if (p)
        blocks_add(c, -1);
    return p;
}

block *shared_take(unsigned c)
{
    block *p = bin_pop(c);
    return p ? p : bin_pop(c + 1);
}

void shared_raise(unsigned c) { add(&pm_shared.bin[c].limit, 1); }

void shared_admit(unsigned c, block *p)
{
    shared_raise(c);
    blocks_add(c, 1);
    list_push(&pm_shared.bin[c].fresh, p);
}

void shared_given(unsigned c)
{
    if (LOAD(&pm_shared.bin[c].given) < REGRETS_MOST)
        add(&pm_shared.bin[c].given, 1);
}

bool shared_regret(unsigned c) { return LOAD(&pm_shared.bin[c].given) > 0 && add(&pm_shared.bin[c].given, -1) >= 0; }

static uint32_t bin_lower(unsigned c, int32_t gone, int32_t unused)
{
    blocks_add(c, -gone);
    add(&pm_shared.bin[c].limit, -gone - unused);
    return (uint32_t)(gone + unused);
}

static int32_t bin_room(const shared_bin *b)
{
    int32_t room = LOAD(&b->limit) - LOAD(&b->blocks);
    return room > 0 ? room : 0;
}

uint32_t shared_look(unsigned c, block **to)
{
    shared_bin *b = &pm_shared.bin[c];
    bool quiet = !LOAD(&b->fresh) && LOAD(&b->given) <= 0;
    int32_t gone = (int32_t)list_move(&b->old, to);
    list_return(&b->old, list_take(&b->fresh));
    STORE(&b->given, 0);
    return bin_lower(c, gone, quiet ? (bin_room(b) + 1) / 2 : 0);
}

uint32_t shared_empty(unsigned c, block **to)
{
    shared_bin *b = &pm_shared.bin[c];
    int32_t gone = (int32_t)(list_move(&b->old, to) + list_move(&b->fresh, to));
    STORE(&b->given, 0);
    return bin_lower(c, gone, bin_room(b));
}
