/* slab.h: One slab's blocks: which are free, by their bits; taking some, giving some back.
 * Whoever calls holds the lock of the slab's home (a heap's, or a pool's). */
#ifndef PM_SLAB_H
#define PM_SLAB_H

#include "ground/base.h"
#include "pools/class.h"
#include "pools/region.h"

#define REFILL_SLABS 4 /* that a bin is filled from at most, so that slabs with one free block each bound a call's work */

INLINE bool slab_is_full(const slab *s, const size_class *c) { return s->out == c->per_slab; }

/* An empty slab from the depot begins a life with blocks of class c, all of them free. */
void slab_open(slab *s, const size_class *c);
/* It is empty, and on its way to the depot or to another class. */
void slab_close(slab *s, const size_class *c);
/* Hardened: it reads as zero again, whoever used it. */
void slab_clear(slab *s);
/* All of its blocks are free at once. */
void slab_reset(slab *s, const size_class *c);
/* Links up to `most` free blocks, lowest address first, behind *link; returns the end of the chain, which the caller ends.
 * O(most). */
block **slab_take(slab *s, const size_class *c, block **link, size_t most);
/* Its pages without any block in use go back to the system. Bytes of those, were they in memory or not (mincore would tell, but
 * sandboxes forbid it). O(blocks in use), a system call for each at most. */
size_t slab_purge(const slab *s, const size_class *c);
/* Gives back the blocks of s that *chain begins with, at most `count`, and moves *chain behind them. Returns how many. A
 * block that is free already: one line, abort. O(blocks). */
size_t slab_give(slab *s, const size_class *c, block **chain, size_t count);
/* Aborts with one line when p is not the beginning of a block of s. */
void slab_check_block(const slab *s, const size_class *c, const void *p);
/* Aborts when the bits and the counters do not agree. */
void slab_check(const slab *s, const size_class *c);

#endif
