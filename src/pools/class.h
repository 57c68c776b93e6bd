/* class.h: Block sizes: one class number each, and the table from a request to its bin. */
#pragma once

#include "ground/base.h"
#include "ground/config.h"
#include "pools/region.h"

#define COLOUR_SHIFT 6
#define COLOURS_MAX_SHIFT 6
#define COLOURS_MAX (1U << COLOURS_MAX_SHIFT)
#define BIN_SIZE 32 /* sizeof(bin); bin c of a heap lies c * BIN_SIZE bytes into it */

typedef struct size_class {
    uint32_t size;     /* bytes of a block; 0: no such class */
    uint32_t per_slab; /* blocks in a slab */
    uint32_t inverse;  /* 2^32 / size, rounded up: offset * inverse >> 32 is the number of the block that begins there */
    uint32_t colours;  /* a power of two, less 1: blocks of slab i begin (i & colours) * 64 bytes into it, within its tail */
    uint16_t limit;    /* blocks that a bin keeps, at first: 128 or 8 KiB; at least 1 */
    uint16_t refill;   /* blocks that a bin gets at once from a slab's bits: 64 or 4 KiB; at least 1 */
    uint16_t run;      /* blocks of one slab that are sent home at once: 64 or 16 KiB; at least 1 */
    uint16_t head;     /* bytes before the first block: bits that have no room elsewhere */
    uint32_t reserved; /* slabs that pre-allocation keeps for this class; depot lock */
    uint32_t waiting_count;
    slab *waiting; /* reserved slabs not in use, linked by next; depot lock */
} size_class;

extern size_class pm_classes[CLASS_MAX] __attribute__((visibility("hidden")));
extern uint32_t pm_class_count; /* malloc's classes: 0 … count - 1; sizes ascend up to where the fixed ones end */
extern uint32_t pm_class_fixed; /* those that the settings name; the rest were learned */

/* What it counts has been written before. */
INLINE unsigned classes_count(void) { return __atomic_load_n(&pm_class_count, __ATOMIC_ACQUIRE); }

/* Requests by (size + 15) / 16 → byte offset of their bin in a heap; the none-bin beyond the largest class. */
extern uint16_t pm_bin_offset[BLOCK_MAX / QUANTUM + 1];
/* The same, or what it held before sizes were hidden: what slow paths go by. */
extern uint16_t *pm_sizes __attribute__((visibility("hidden")));
extern uint16_t pm_sizes_aside[] __attribute__((visibility("hidden"))); /* where it points while sizes are hidden, and what they were then */

void classes_init(const size_list *sizes);
/* Blocks of `size` bytes, of which as many as fit go into a slab. Above an alignment of 64 without colours. */
void class_shape(size_class *c, size_t size, size_t align);

/* The first block of a slab of class c. Colours spread the first lines of large blocks, which programs touch most, over
 * the sets of the caches: without them slab i and slab j would meet in the same ones. The hardened library has neither colours nor heads. */
INLINE char *slab_first(const slab *s, const size_class *c)
{
    return PM_HARDENED ? slab_begin(s) : slab_begin(s) + c->head + ((slab_index(s) & c->colours) << COLOUR_SHIFT);
}
/* Where block `number` begins, or the one before it ends, in bytes behind the slab's guard. */
INLINE size_t slab_offset(const slab *s, const size_class *c, size_t number)
{
    return (size_t)(slab_first(s, c) - slab_begin(s)) + number * c->size;
}
INLINE uint64_t *slab_bits(const slab *s, const size_class *c)
{
    return !PM_HARDENED && UNLIKELY(c->head != 0) ? (uint64_t *)slab_memory(s) : pm_region.bits_end - (slab_index(s) + 1) * (SLAB_BITS_STEP / 8);
}

/* The last word of a block, which in the hardened library tells its state (hardened.h). */
INLINE uint64_t *block_tail(const void *p, const size_class *c)
{
    return (uint64_t *)((uintptr_t)p + c->size - sizeof(uint64_t));
}

INLINE unsigned class_in(const uint16_t *table, size_t size) { return READ(&table[(size + QUANTUM - 1) / QUANTUM]) / BIN_SIZE; }
INLINE unsigned class_of(size_t size) { return class_in(LOAD(&pm_sizes), size); }

/* The next larger one that requests lead to, or CLASS_NONE. */
INLINE unsigned class_above(unsigned klass)
{
    size_t size = LOAD(&pm_classes[klass].size);
    return size < BLOCK_MAX ? class_of(size + 1) : CLASS_NONE;
}

/* By class of the size and alignment (16, 32, … 4096): the class that serves both, or CLASS_NONE: its blocks are
 * at most twice as large as the size's own class's, beyond that the next allocator does better. Above an alignment of 64 only
 * classes whose slabs have no colours will do. */
#define ALIGN_SHIFTS 9
#define ALIGN_POOLED (QUANTUM << (ALIGN_SHIFTS - 1))
extern uint8_t pm_aligned_class[CLASS_MAX][ALIGN_SHIFTS];

/* Fills the table, once: most programs never ask for anything aligned. Any thread, any time after classes_init. */
void classes_align(void);
extern bool pm_classes_aligned; /* it is filled; releases */
/* A learned class: aligned requests that would have led to it have its next larger fixed one. */
void class_align_learned(unsigned klass);
/* How all of a class's blocks lie: log2. */
INLINE unsigned class_lies(const size_class *c)
{
    unsigned lies = (unsigned)__builtin_ctz(c->size);
    return c->colours != 0 && lies > COLOUR_SHIFT ? COLOUR_SHIFT : lies;
}

/* size <= BLOCK_MAX; align a power of two <= ALIGN_POOLED. CLASS_NONE too while the table is empty: zero stands for it. */
INLINE unsigned class_aligned_in(const uint16_t *table, size_t size, size_t align)
{
    align = size_max(align, QUANTUM);
    size = size_max(size, align); /* a multiple of align is no less than that */
    return LOAD(&pm_aligned_class[class_in(table, size)][__builtin_ctzl(align) - QUANTUM_SHIFT]) ^ CLASS_NONE;
}
INLINE unsigned class_aligned(size_t size, size_t align) { return class_aligned_in(LOAD(&pm_sizes), size, align); }
