/* class.c: layer 5. See class.h. */
#include "class.h"

#include <string.h>

#define BIN_BYTES (8 * KIB)
#define REFILL_BLOCKS 32
#define REFILL_BYTES (4 * KIB)

size_class pm_classes[CLASS_MAX];
uint32_t pm_class_count;
uint16_t pm_bin_offset[BLOCK_MAX / QUANTUM + 1];
uint8_t pm_aligned_class[ALIGN_SHIFTS][CLASS_MAX];

static_assert(CLASS_MAX * BIN_SIZE <= UINT16_MAX, "bin offsets fit the table");
static_assert((uint64_t)SLAB_SIZE * BLOCK_MAX <= (uint64_t)1 << 33 && SLAB_SIZE < (uint64_t)1 << 32, "inverse is exact");

static uint16_t count_within(size_t most, size_t bytes, size_t size)
{
    return (uint16_t)size_max(1, size_min(most, bytes / size));
}

void class_shape(size_class *c, size_t size, size_t align)
{
    c->size = (uint32_t)size;
    c->per_slab = (uint32_t)size_min(SLAB_SIZE / size, SLAB_BLOCKS_MAX);
    c->inverse = (uint32_t)((((uint64_t)1 << 32) + size - 1) / size);
    size_t tail = align > (size_t)1 << COLOUR_SHIFT ? 0 : SLAB_SIZE - c->per_slab * size;
    c->colours = 0;
    while (2 * c->colours + 1 < COLOURS_MAX && ((2 * c->colours + 1) << COLOUR_SHIFT) <= tail)
        c->colours = 2 * c->colours + 1;
    c->limit = count_within(BIN_BLOCKS, BIN_BYTES, size);
    c->refill = count_within(REFILL_BLOCKS, REFILL_BYTES, size);
    assert(c->refill <= c->limit);
}

/* One row, from the largest class down: a class that lies so serves itself and, within twice their size, those below it. */
static void aligned_init(uint8_t *row, size_t align)
{
    bool colours_do = align <= (size_t)1 << COLOUR_SHIFT;
    unsigned above = CLASS_NONE;
    memset(row, CLASS_NONE, CLASS_MAX);
    for (unsigned c = pm_class_count; c-- > 0;) {
        if ((pm_classes[c].size & (align - 1)) == 0 && (colours_do || pm_classes[c].colours == 0))
            above = c;
        row[c] = (uint8_t)(above != CLASS_NONE && pm_classes[above].size <= 2 * pm_classes[c].size ? above : CLASS_NONE);
    }
}

void classes_init(const size_list *sizes)
{
    size_t step = 0;
    for (unsigned c = 0; c < sizes->length; c++) {
        class_shape(&pm_classes[c], sizes->at[c].size, QUANTUM);
        for (; step <= sizes->at[c].size / QUANTUM; step++)
            pm_bin_offset[step] = (uint16_t)(c * BIN_SIZE);
    }
    for (; step <= BLOCK_MAX / QUANTUM; step++)
        pm_bin_offset[step] = CLASS_NONE * BIN_SIZE;
    pm_class_count = sizes->length;
    for (unsigned shift = 0; shift < ALIGN_SHIFTS; shift++)
        aligned_init(pm_aligned_class[shift], QUANTUM << shift);
}
