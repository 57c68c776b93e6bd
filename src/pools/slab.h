/* slab.h: one slab's blocks: which are free, by their bits; what came back, as a chain or from other threads.
 * Whoever calls holds the lock of the slab's home (a heap's, or a guest's), and is the heap's thread where it says so. */
#pragma once

#include "ground/base.h"
#include "pools/class.h"
#include "pools/depot.h"
#include "pools/region.h"

#define REFILL_SLABS 4 /* that a bin is filled from at most, so that slabs with one free block each bound a call's work */

/* slab.remote: how many blocks came back from other threads, whether the home is being told of it, and the newest of them.
 * A slab is told of by one thread at a time: who sets the mark links it into the home's inbox, who takes it out clears it. */
#define REMOTE_ONE ((uint64_t)1 << 49)
#define REMOTE_TOLD ((uint64_t)1 << 48)
#define REMOTE_BLOCK (REMOTE_TOLD - 1)
static_assert(SLAB_BLOCKS_MAX < (1 << 15), "15 bits of count; 48 of address, which is what user space has where no hint asks for more");

INLINE size_t remote_count(uint64_t remote) { return (size_t)(remote / REMOTE_ONE); }
INLINE block *remote_first(uint64_t remote) { return (block *)(uintptr_t)(remote & REMOTE_BLOCK); }

INLINE bool slab_is_full(const slab *s, const size_class *c) { return slab_out(s) == c->per_slab; } /* a guest's */
INLINE size_t slab_chained(const slab *s, const size_class *c) { return c->per_slab + s->back - slab_out(s) - s->free; }

/* Blocks that out counts, though others gave them back. */
INLINE size_t slab_returned(const slab *s) { return remote_count(LOAD(&s->remote)) + s->back; }

/* Every block is home, and nobody is being told of it: only then may a slab leave. True for good, once: no block is out there
 * that could come back, and only the holder of the lock hands any out. */
INLINE bool slab_is_home(const slab *s)
{
    uint64_t remote = __atomic_load_n(&s->remote, __ATOMIC_ACQUIRE);
    return remote_count(remote) + s->back == slab_out(s) && !(remote & REMOTE_TOLD);
}

/* An empty slab from the depot begins a life with blocks of class c, all of them free. */
void slab_open(slab *s, const size_class *c);
/* The same, and all of them are taken at once: linked behind *link, lowest address first. Returns the end of the chain, which the
 * caller ends. The heap's thread. */
block **slab_open_whole(slab *s, const size_class *c, block **link);
/* It is empty, and on its way to the depot or to another class. */
void slab_close(slab *s, const size_class *c);
/* Hardened: it reads as zero again, whoever used it. */
void slab_clear(slab *s);
/* All of its blocks are free at once. */
void slab_reset(slab *s, const size_class *c);
/* How many of its free blocks may be taken, `most` at most: at the limit only where the slab was in use before. */
size_t slab_within_limit(slab *s, const size_class *c, size_t most);
INLINE size_t slab_affordable(slab *s, const size_class *c, size_t most)
{
    most = size_min(most, s->free);
    return LIKELY(s->touched == SLAB_ROOM) ? most : slab_within_limit(s, c, most);
}
/* Links up to `most` free blocks, lowest address first, behind *link; returns the end of the chain, which the caller ends.
 * The heap's thread. O(most). */
block **slab_take(slab *s, const size_class *c, block **link, size_t most);
/* The same `most`, which it has, as addresses: with no link in them. */
void slab_deal(slab *s, const size_class *c, block **blocks, size_t most);
/* Takes what others gave back: a chain of *count blocks, or NULL. */
block *slab_take_remote(slab *s, size_t *count);
/* The chain goes to the bits, and back out of out. The heap's thread. O(chain). */
void slab_order(slab *s, const size_class *c);
/* What came back in whatever way is in the bits. `mine`: by the heap's thread, and the chain too. O(blocks that came back). */
void slab_gather(slab *s, const size_class *c, bool mine);
/* A chain of so many blocks, from first to last, that another thread than the heap's gives back; from any thread, without any
 * lock. True: the caller tells the slab's home. */
bool slab_give_remote(slab *s, block *first, block *last, size_t count);
/* Its pages without any block in use go back to the system. Bytes of those, were they in memory or not (mincore would tell, but
 * sandboxes forbid it). O(blocks in use), a system call for each at most. */
size_t slab_purge(const slab *s, const size_class *c);
/* Gives the blocks of s that *chain begins with, at most `count`, back to the bits, and moves *chain behind them. Returns how many.
 * A block that is free already: a report, abort. The heap's thread. O(blocks). */
size_t slab_give(slab *s, const size_class *c, block **chain, size_t count);
/* The same of blocks by their addresses. */
size_t slab_give_these(slab *s, const size_class *c, block *const *blocks, size_t count);
/* After a fork, which may have come between two stores of its thread's: out from what is there. O(chain). */
void slab_recount(slab *s, const size_class *c);
/* Aborts with one line when p is not the beginning of a block of s. */
void slab_check_block(const slab *s, const size_class *c, const void *p);
/* Aborts when bits, chain and counters do not agree. `mine`: the chain may be looked at. */
void slab_check(const slab *s, const size_class *c, bool mine);
