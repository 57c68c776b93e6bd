/* large.h: Blocks of the next allocator that are kept at hand for a moment when they are freed: those of more than 32 KiB and less
 * than 32 MiB, in bins, eight to a doubling, of the heap whose thread freed them.
 *
 * A bin keeps nothing until a block that was given back was asked for again: each such miss allows one block more, as long as all
 * bins together are allowed no more than what may be (large.c). What a bin was allowed and did not need for POOLMALLOC_PURGE_DELAY
 * goes back, and the allowance with it. So a program that frees once, or for good, frees to the next allocator, and its
 * uses after free are caught as they would be without us.
 *
 * A block at hand bears a mark (kept.h), by which a second free of it is told.
 *
 * A signal handler that interrupts the next allocator comes there by what it asks for itself alone: nothing is given back, nor tuned.
 * A signal handler that comes between the two stores of a take or put, and frees a block of that size itself, loses it. */
#pragma once

#include "pools/alloc.h"
#include "preload/next.h"
#include "preload/shared.h"

/* What the next allocator says that a block holds which the program gives back; 0 of all blocks where nothing is kept. */
extern size_t (*pm_large_size)(void *) __attribute__((visibility("hidden")));

/* Around each call of the next allocator's, but for those that change nothing. */
INLINE bool large_is_away(void) { return my_heap->kept.away > 0; }
INLINE void large_away(int by)
{
    if (LIKELY(heap_is_real(my_heap)))
        my_heap->kept.away = (uint8_t)(my_heap->kept.away + by);
}

void large_init(void);                   /* the next allocator is found, the settings are read */
size_t large_round(size_t size);         /* what is asked of the next allocator for a request */
void *large_more(size_t size);           /* another block at hand than large_take's, or NULL: a miss, of which bins learn */
void large_give(void *p);                /* to the next allocator: there is no room for it */
void *large_got(void *p);                /* counts a block that the next allocator gave, in whatever way; p may be NULL */
void large_gone(size_t usable);          /* … and one that it has got back, or made another one of */
bool large_shed(void);                   /* there is no memory: what is at hand goes back; false: nothing was */
/* Looks at what is old, here and elsewhere; returns p; keeps errno. */
void *large_tick(void *p) __attribute__((returns_nonnull));

/* The bin for a block of so many bytes; KEPT_BINS or more: none. */
INLINE unsigned large_class_held(size_t usable)
{
    usable |= 1; /* so that there is a bit */
    unsigned top = 63 ^ (unsigned)__builtin_clzl(usable);
    return (unsigned)(usable >> (top - 3)) + 8 * top - (8 * KEPT_SHIFT + 9);
}
/* The bin whose blocks serve a request of more than KEPT_LEAST. */
INLINE unsigned large_class(size_t size)
{
    unsigned top = 63 ^ (unsigned)__builtin_clzl(size - 1);
    return (unsigned)((size - 1) >> (top - 3)) + 8 * top - (8 * KEPT_SHIFT + 8);
}

/* By the heap's thread alone. */
INLINE void list_put(kept_block **list, kept_block *first) { __atomic_store_n(list, first, __ATOMIC_RELEASE); }

/* Its address in a register, where gcc 12 would make it anew for each field. */
INLINE kept_bin *kept_bin_at(kept_bins *k, unsigned c)
{
    kept_bin *b = &k->bin[c];
    __asm__("" : "+r"(b));
    return b;
}

/* By the heap's thread; to be handed out by kept_hand_out. */
INLINE kept_block *kept_bin_take(kept_bin *b)
{
    kept_block *p = list_take(&b->fresh);
    if (LIKELY(p != NULL)) {
        list_put(&b->fresh, p->next);
        b->room++;
    }
    return p;
}

/* A block at hand for a request of more than KEPT_LEAST, or NULL. */
INLINE void *large_take(size_t size)
{
    unsigned c = large_class(size);
    if (UNLIKELY(c >= READ(&pm_kept_bins)))
        return NULL;
    kept_bins *k = &my_heap->kept;
    kept_bin *b = kept_bin_at(k, c);
    kept_block *p = kept_bin_take(b);
    if (UNLIKELY(!p) && !(p = kept_bin_take(b + 1)))
        return NULL;
    if (UNLIKELY(!kept_hand_out(p)))
        return kept_wrong(p);
    return UNLIKELY(--k->until == 0) ? large_tick(p) : p;
}

/* A block that is freed. False: no room, it is to be given on. */
INLINE bool large_put(void *given)
{
    kept_block *p = given;
    unsigned c = large_class_held(pm_large_size(p));
    if (UNLIKELY(c >= READ(&pm_kept_bins)))
        return false;
    kept_bin *b = kept_bin_at(&my_heap->kept, c);
    if (UNLIKELY(b->room <= 0))
        return false;
    kept_say(p, KEPT_HERE);
    p->next = list_take(&b->fresh);
    list_put(&b->fresh, p);
    b->room--;
    return true;
}
