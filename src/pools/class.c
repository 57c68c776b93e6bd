/* class.c: See class.h. */
#include "pools/class.h"

#include <string.h>

#define BIN_BLOCKS 128
#define BIN_BYTES (8 * KIB)
#define REFILL_BLOCKS 64
#define REFILL_BYTES (4 * KIB)
#define RUN_BLOCKS 64
#define RUN_BYTES (16 * KIB)

size_class pm_classes[CLASS_MAX];
uint32_t pm_class_count, pm_class_fixed;

/* As the default sizes have it, so that most processes share these pages with the file. */
#define STEPS(c, below, size) [(below) / QUANTUM + 1 ...(size) / QUANTUM] = (c) * BIN_SIZE
#define QUARTERS(n, size) ((size_t)(size) / 4 * (n))
#define DOUBLING(c, size)                                                                                              \
    STEPS(c, size, QUARTERS(5, size)), STEPS((c) + 1, QUARTERS(5, size), QUARTERS(6, size)),                           \
        STEPS((c) + 2, QUARTERS(6, size), QUARTERS(7, size)), STEPS((c) + 3, QUARTERS(7, size), QUARTERS(8, size))
uint16_t pm_bin_offset[BLOCK_MAX / QUANTUM + 1] = {
    STEPS(1, 16, 32),    STEPS(2, 32, 48),    STEPS(3, 48, 64),   DOUBLING(4, 64),     DOUBLING(8, 128),
    DOUBLING(12, 256),   DOUBLING(16, 512),   DOUBLING(20, 1024), DOUBLING(24, 2048),  DOUBLING(28, 4096),
    DOUBLING(32, 8192),  DOUBLING(36, 16384), STEPS(CLASS_NONE, 32768, BLOCK_MAX),
};
uint16_t *pm_sizes = pm_bin_offset;
uint8_t pm_aligned_class[CLASS_MAX][ALIGN_SHIFTS] RARE;
bool pm_classes_aligned;

static_assert(CLASS_MAX * BIN_SIZE <= UINT16_MAX, "bin offsets fit the table");
static_assert((uint64_t)SLAB_SIZE * BLOCK_MAX <= (uint64_t)1 << 33 && SLAB_SIZE < (uint64_t)1 << 32, "inverse is exact");

static uint16_t count_within(size_t most, size_t bytes, size_t size)
{
    return (uint16_t)size_max(1, size_min(most, bytes / size));
}

void class_shape(size_class *c, size_t size, size_t align)
{
    STORE(&c->size, (uint32_t)size);
    c->head = (uint16_t)(SLAB_SIZE / size > SLAB_BITS_BYTES * 8 && !PM_HARDENED ? round_up(SLAB_SIZE / size / 8, 64) : 0);
    c->per_slab = (uint32_t)size_min((SLAB_ROOM - c->head) / size, c->head ? SLAB_BLOCKS_MAX : SLAB_BITS_BYTES * 8);
    c->inverse = (uint32_t)((((uint64_t)1 << 32) + size - 1) / size);
    size_t tail = align > (size_t)1 << COLOUR_SHIFT || PM_HARDENED ? 0 : SLAB_SIZE - c->head - c->per_slab * size;
    unsigned doublings = 63U - (unsigned)__builtin_clzl((tail >> COLOUR_SHIFT) + 1);
    c->colours = (doublings < COLOURS_MAX_SHIFT ? 1U << doublings : COLOURS_MAX) - 1;
    STORE(&c->limit, count_within(BIN_BLOCKS, BIN_BYTES, size));
    c->refill = count_within(REFILL_BLOCKS, REFILL_BYTES, size);
    c->run = count_within(RUN_BLOCKS, RUN_BYTES, size);
}

/* Writes only where something changes. Offsets rise with the sizes: a run whose two ends are right is right. */
static void offsets_fill(size_t from, size_t to, unsigned klass)
{
    uint16_t offset = (uint16_t)(klass * BIN_SIZE);
    if (pm_bin_offset[from] == offset && pm_bin_offset[to - 1] == offset)
        return;
    for (; from < to; from++)
        pm_bin_offset[from] = offset;
}

void classes_init(const size_list *sizes)
{
    size_t done = 0;
    for (unsigned c = 0; c < sizes->length; c++) {
        size_t to = sizes->at[c].size / QUANTUM + 1;
        class_shape(&pm_classes[c], sizes->at[c].size, QUANTUM);
        offsets_fill(done, to, c);
        done = to;
    }
    if (done <= BLOCK_MAX / QUANTUM)
        offsets_fill(done, BLOCK_MAX / QUANTUM + 1, CLASS_NONE);
    pm_class_count = pm_class_fixed = sizes->length;
}

/* From the largest class down: a class that lies so serves itself and, within twice their size, those below it. The sizes
 * above rise with the alignment: beyond the first that is too large, all are. Each entry is written once, and several threads
 * that are here at once write the same. */
void classes_align(void)
{
    uint8_t above[ALIGN_SHIFTS];
    if (LIKELY(__atomic_load_n(&pm_classes_aligned, __ATOMIC_ACQUIRE)))
        return;
    memset(above, CLASS_NONE, sizeof above);
    for (unsigned c = pm_class_fixed; c-- > 0;) {
        unsigned lies = class_lies(&pm_classes[c]);
        for (unsigned shift = 0; shift < ALIGN_SHIFTS && shift + QUANTUM_SHIFT <= lies; shift++)
            above[shift] = (uint8_t)c;
        for (unsigned shift = 0; shift < ALIGN_SHIFTS && pm_classes[above[shift]].size <= 2 * pm_classes[c].size; shift++)
            STORE(&pm_aligned_class[c][shift], above[shift] ^ CLASS_NONE);
    }
    __atomic_store_n(&pm_classes_aligned, true, __ATOMIC_RELEASE);
    for (unsigned c = pm_class_fixed; c < classes_count(); c++)
        class_align_learned(c);
}

void class_align_learned(unsigned klass)
{
    unsigned larger = klass;
    if (!__atomic_load_n(&pm_classes_aligned, __ATOMIC_ACQUIRE))
        return;
    while (larger >= pm_class_fixed)
        larger = class_above(larger);
    for (unsigned shift = 0; shift < ALIGN_SHIFTS; shift++)
        STORE(&pm_aligned_class[klass][shift], LOAD(&pm_aligned_class[larger][shift]));
}
