/* region.h: The address space: four extents that grow in place, side by side (docs/DESIGN.md, Address map).
 *
 *   heaps …  |  control page, first heaps, slab records …  |  … free bits | region: slab 0, slab 1, …
 *
 * Nothing is reserved: each extent is mapped as it is needed, at its own end, so that RLIMIT_AS, mlockall and strict
 * overcommit see only what is used. A foreign mapping in the way ends the growth of that extent. In the hardened library a page that
 * nobody may touch ends each extent, wherever it ends just then, and one lies between the first heaps and the records. */
#pragma once

#include "ground/base.h"

typedef enum {
    SLAB_NONE,    /* never handed out */
    SLAB_CLEAN,   /* depot.clean: reads as zero, holds no page */
    SLAB_DIRTY,   /* depot.dirty or depot.broken: empty, holds pages */
    SLAB_WHOLE,   /* one of the slabs of a free unit; the unit's first slab is on depot.whole */
    SLAB_WAITING, /* reserved for one class, on its waiting list */
    SLAB_USED,    /* in a heap, a pool or an arena, or on the way to one */
    SLAB_ZEROED   /* as USED, and what was not handed out yet reads as zero */
} slab_state;

/* One record a slab, outside the slab. A block of it is in one of four places:
 *   bits    one a block, set when free; in order, but dear to look up             heap lock
 *   chain   came back by the owner's hand, newest first                           the owner's thread alone
 *   remote  came back from other threads                                          atomic
 *   out there: in the program's hands, in a bin, or in a run on its way
 * Equations: free = bits set;  chain's length = per_slab - out - free + back;  out there = out - back - remote's count.
 * On its bin's partial list exactly when `listed`; with anything in bits, chain or remote it is, but for the moment until its heap
 * hears of it. No bit is set in a word before hint. Blocks from high on have never been handed out since the slab was opened.
 * A guest's slabs know bits only, and are on its one list, those with free blocks first.
 * A heap without a thread has its lock's holder for its thread. owner, bin, home, pool, klass may be read any time. */
struct slab {
    heap *owner;        /* the heap whose free() may take the short way; the constant nobody in modes that see every call */
    bin *bin;           /* home's bin of this class */
    heap *home;         /* the heap it belongs to; nobody while in the depot */
    block *chain;       /* the owner's thread */
    slab *next, *prev;  /* neighbours on the one list it is on */
    int32_t left;       /* the owner's thread; release, for who asks whether all are home. out = left + look: one count, kept so that */
    uint16_t look;      /* free() sees by its zero that out has come down to look, and goes the long way; heap lock */
    uint16_t back;      /* blocks that others moved from remote to bits and that out still counts; heap lock */
    uint16_t free;      /* bits set; heap lock */
    uint16_t high;
    uint8_t klass;
    uint8_t hint;
    uint8_t state; /* slab_state */
    bool listed;

    _Alignas(64) uint64_t remote; /* count, told, newest block: see slab.h. Writers release, who takes the blocks acquires */
    slab *told;         /* the next one that its home is told of; whoever holds `told` */
    pm_pool *pool;      /* whose it is, when home is HEAP_POOL; NULL: an arena's. NULL in all other slabs */
    uint32_t since;     /* when it became empty (in the depot), or was first seen at rest (in a heap), ms; wraps after 49 days */
    uint8_t unit_empty; /* in a unit's first record: how many of its slabs are in the depot; depot lock */
    bool unit_huge;     /* there too: huge pages were asked for; depot lock, but read by who opens or trims a slab */
    bool unripe;        /* counted in depot.unripe */
    uint16_t asked;     /* (size + 15) / 16 of the last request that was seen to be served from it, or 0; heap lock */
    uint16_t rest;      /* blocks out at the last look at whether it is at rest; heap lock */
    bool trimmed;       /* its free pages went back, and no block has come home since */
    uint32_t touched;   /* bytes behind its guard that may hold pages: beyond, nothing was handed out since they went back; its holder */
};
static_assert(sizeof(slab) == 128, "two lines a slab: what its owner's thread writes, and the rest");

/* 512 bytes of free bits a slab: 0.4 % of the memory they describe. More blocks than that have their bits in the slab itself. */
#define SLAB_BLOCKS_MAX 8192
#define SLAB_BITS_BYTES ((size_t)512)
/* The hardened library has bits for what came back from other threads, too: it stores nothing in a free block. */
#define SLAB_BITS_STEP (PM_HARDENED ? 2 * SLAB_BITS_BYTES : SLAB_BITS_BYTES)
static_assert(SLAB_BLOCKS_MAX / 64 <= UINT8_MAX, "hint is the number of a word");

typedef struct extent {
    char *base;     /* the end from which it grows */
    size_t size;    /* bytes mapped */
    size_t ceiling; /* bytes it may grow to */
    bool down;      /* towards lower addresses */
    uint32_t refused; /* when it last could not grow, ms; 0: it could */
} extent;

/* What free() reads lies first. Before start base is 1 << 63 and size 0, so that no pointer is ours. */
typedef struct region {
    uintptr_t base;
    size_t size; /* bytes mapped read-write; shrinks only where no block is */
    slab *slabs;         /* in records, behind the front */
    uint64_t *bits_end; /* those of slab 0 lie just before it, of slab 1 before those */
    char *front;   /* in records, behind the control page's head: what region_init was asked to leave room for */
    extent blocks, records, free_bits, heaps;
} region;

extern region pm_region __attribute__((visibility("hidden")));

/* First bytes of the control page, by which another process finds us. Addresses are of this process. */
typedef struct control {
    char magic[16];
    char version[16];
    uint32_t layout;      /* changes with any structure that the live view reads */
    uint32_t pid;
    const region *region;
    const void *classes, *class_count, *class_counts, *depot, *config, *pools;
    const void *pool_home, *nobody; /* HEAP_POOL, HEAP_NOBODY */
    const void *forwarded;   /* pm_forwarded_elsewhere */
    const void *next;        /* pm_next_name: a pointer to a string */
    const void *registry;    /* set last, when the pools are up; NULL until then */
    const void *asked, *samples; /* pm_asked, the only word that another process may write; pm_samples */
    const void *shared;          /* pm_shared */
} control;

#define CONTROL_MAGIC "poolmalloc-live"
#define CONTROL_LAYOUT 16u

/* Finds a place and maps the control page, `front` bytes behind its head (whole pages), and the first records; false: no
 * pools. Called once, before any other thread may come here. */
bool region_init(size_t front);
/* Maps more slabs at the end. False: no memory, or something lies there. Depot lock. */
bool region_grow(void);
/* Unmaps what lies behind the first `slabs` slabs, by whole units; false: nothing does. Depot lock. */
bool region_shrink(size_t slabs);
/* Touches the bookkeeping of the first `slabs` slabs, so that no page fault comes later. */
void region_populate(size_t slabs);
/* Maps the heaps' extent, zeroed, until it has `bytes`, by `step`. False: no memory, or something lies there. Registry lock. */
bool region_cover_heaps(size_t bytes, size_t step);
INLINE control *region_control(void) { return (control *)pm_region.records.base; }
/* Unmaps all of it; for code that is about to be unloaded. */
void region_end(void);
/* The hardened library: p lies on one of the pages that nobody may touch. */
bool region_guards(const void *p);

INLINE size_t region_offset(const void *p) { return (uintptr_t)p - READ(&pm_region.base); }
INLINE bool region_holds(const void *p) { return region_offset(p) < READ(&pm_region.size); }
INLINE slab *slab_of(const void *p) { return &pm_region.slabs[region_offset(p) >> SLAB_SHIFT]; }
INLINE size_t slab_index(const slab *s) { return (size_t)(s - pm_region.slabs); }
INLINE char *slab_memory(const slab *s) { return pm_region.blocks.base + (slab_index(s) << SLAB_SHIFT); }
/* What blocks may lie in. */
INLINE char *slab_begin(const slab *s) { return slab_memory(s) + SLAB_GUARD; }
#define SLAB_ROOM (SLAB_SIZE - SLAB_GUARD)
INLINE slab *slab_unit(const slab *s) { return &pm_region.slabs[slab_index(s) / UNIT_SLABS * UNIT_SLABS]; }
INLINE size_t slab_out(const slab *s) { return (size_t)(__atomic_load_n(&s->left, __ATOMIC_ACQUIRE) + LOAD(&s->look)); }
INLINE void slab_out_set(slab *s, size_t out) { __atomic_store_n(&s->left, (int32_t)out - s->look, __ATOMIC_RELEASE); }
INLINE bool slab_in_use(const slab *s) { return s->state >= SLAB_USED; }

/* Asks for (or refuses) huge pages behind the unit that begins with this slab. */
void unit_advise(slab *unit, bool huge);

/* Doubly linked list of slabs. A slab is on one list at a time. */
typedef struct slab_list {
    slab *first, *last;
    size_t count;
} slab_list;

INLINE void slab_list_push(slab_list *l, slab *s)
{
    s->prev = NULL;
    s->next = l->first;
    *(l->first ? &l->first->prev : &l->last) = s;
    l->first = s;
    l->count++;
}
INLINE void slab_list_append(slab_list *l, slab *s)
{
    s->next = NULL;
    s->prev = l->last;
    *(l->last ? &l->last->next : &l->first) = s;
    l->last = s;
    l->count++;
}
INLINE void slab_list_remove(slab_list *l, slab *s)
{
    *(s->prev ? &s->prev->next : &l->first) = s->next;
    *(s->next ? &s->next->prev : &l->last) = s->prev;
    l->count--;
}
