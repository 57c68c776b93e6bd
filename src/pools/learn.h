/* learn.h: block sizes that a program's requests ask for, found while it runs (docs/DESIGN.md, Sizes that are learned).
 * Called on slow paths only; what it keeps is read by nobody else. */
#pragma once

#include "ground/os.h"
#include "pools/class.h"

#define LEARN_SIZES (BLOCK_MAX / QUANTUM + 1)
#define LEARN_CHANGES 64 /* that a process makes at most */

/* Statistics: a sample lost to another thread's does no harm. Only `slabs` is exact, because a class changes its size only while
 * it has none:
 *   slabs[c] = slabs open with blocks of c, and CLASS_CLOSED while it is given another size;  no slab is opened meanwhile. */
typedef struct learner {
    bool on;                     /* constant: POOLMALLOC_BLOCK_SIZES=auto, and no mode that counts each size */
    uint32_t changes;            /* lock */
    os_lock lock;                /* guards the shapes of learned classes and pm_bin_offset; nothing is taken under it */
    uint32_t slabs[CLASS_MAX];   /* atomic: opening acquires, closing releases */
    uint32_t opened[CLASS_MAX];  /* since the class was looked at */
    uint32_t most[CLASS_MAX];    /* slabs[c] at most, when it was looked at */
    uint8_t vain[CLASS_MAX];     /* looks in a row that found nothing; lock */
    uint16_t lowest[CLASS_MAX];  /* (size + 15) / 16 of the smallest request that leads to it; lock */
    uint32_t before[CLASS_MAX];  /* slabs that were there when the class began to serve what it does now */
} learner;

extern learner pm_learn;
extern uint32_t pm_learn_held[LEARN_SIZES]; /* by (size + 15) / 16: slabs whose last sample was a request of that size */

void learn_init(const size_list *sizes);

/* A slab begins to have blocks of klass, before anything of the class's shape is read. */
void learn_open(slab *s, unsigned klass);
/* All of its blocks are home. */
void learn_close(slab *s);
/* A sample: a block of s has been handed out for `size` bytes; so many heaps may come to want a class's slabs. O(sizes of the class),
 * now and then. */
void learn_note(slab *s, size_t size, uint32_t heaps);

/* Hides the sizes: each entry of pm_bin_offset leads to the bin that is always empty, so that every call of malloc comes to a slow path,
 * and nothing of the next allocator's is kept; or shows them again. Free's short way stays as it is. False: not now. */
bool sizes_hide(bool hide);
