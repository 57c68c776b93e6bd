/* learn.c: block sizes found while the program runs: what is learned, what never changes meanwhile, and how often. */
#include "unit.h"
#include "meet.h"
#include "pools/learn.h"
#include "start.h"

#include <string.h>

#define MANY 200000
static void *blocks[MANY];

static size_t take_bytes(size_t bytes, size_t size)
{
    size_t n = 0;
    for (; n < MANY && n * size < bytes; n++) {
        blocks[n] = alloc_slow(class_of(size), size);
        assert_non_null(blocks[n]);
        assert_true(block_size_of(blocks[n]) >= size);
    }
    return n;
}

static void give(size_t n)
{
    while (n > 0)
        free_block(blocks[--n]);
    pools_check();
}

static uint32_t learned(void) { return pm_class_count - pm_class_fixed; }

TEST(a_few_blocks_teach_nothing)
{
    give(take_bytes(MIB / 2, 4360));
    assert_int_equal(learned(), 0);
    assert_int_equal(pm_classes[class_of(4360)].size, 5120);
}

TEST(many_of_one_size_get_theirs)
{
    size_t n = take_bytes(8 * MIB, 4360);
    assert_int_equal(pm_classes[class_of(4360)].size, 4368);
    assert_int_equal(pm_classes[class_of(4368)].size, 4368);
    assert_int_equal(pm_classes[class_of(4369)].size, 5120);
    assert_int_equal(pm_classes[class_of(4097)].size, 4368);
    assert_int_equal(pm_classes[class_of(4096)].size, 4096);
    assert_int_equal(block_size_of(blocks[0]), 5120); /* as it was when it was handed out */
    assert_int_equal(block_size_of(blocks[n - 1]), 4368);
    assert_int_equal(class_above(class_of(4000)), class_of(4360));
    assert_int_equal(class_above(class_of(4360)), class_of(5000));
    assert_true(meetings_with("learn") > 0);
    give(n);
}

TEST(what_fits_already_teaches_nothing)
{
    uint32_t before = pm_learn.changes;
    give(take_bytes(32 * MIB, 10240));
    give(take_bytes(16 * MIB, 1020));
    assert_int_equal(pm_learn.changes, before);
}

/* They have no size to divide by. */
TEST(blocks_of_nothing_teach_nothing)
{
    uint32_t before = pm_learn.changes;
    size_t n = 0;
    for (; n < MANY; n++) {
        assert_non_null(blocks[n] = alloc_slow(class_of(0), 0));
        learn_note(slab_of(blocks[n]), n % 3 ? 0 : QUANTUM, 1);
    }
    assert_int_equal(pm_learn.changes, before);
    assert_int_equal(LOAD(&pm_learn_held[0]), 0);
    give(n);
}

TEST(aligned_requests_lie_as_before)
{
    for (size_t align = 16; align <= ALIGN_POOLED; align *= 2)
        for (size_t size = 4100; size <= 5120; size += 4) {
            unsigned c = class_aligned(size, align);
            if (c == CLASS_NONE)
                continue;
            void *p = alloc_slow(c, size);
            assert_true((uintptr_t)p % align == 0 && block_size_of(p) >= size);
            free_block(p);
        }
    assert_int_equal(class_aligned(4360, 64), class_aligned(5000, 64));
}

/* No short way finds a block meanwhile; what is learned then holds afterwards. */
TEST(hidden_sizes_are_learned_too)
{
    pools_trim(); /* bins are as at first */
    unsigned klass = class_of(4360);
    void *p = alloc_slow(klass, 4360);
    free_block(p);
    for (int turn = 0; turn < 2; turn++) { /* twice is once */
        assert_true(sizes_hide(true));
        for (size_t size = 0; size <= BLOCK_MAX; size += QUANTUM)
            assert_null(bin_pop(bin_of_size(my_heap, size)));
    }
    assert_int_equal(class_of(4360), klass);
    pm_unwatched = 8720;
    assert_ptr_equal(bin_pop_unwatched(4360), p);
    assert_null(bin_pop_unwatched(4360));
    assert_int_equal(pm_unwatched, 4360);
    free_block(p);
    size_t n = take_bytes(8 * MIB, 6200);
    for (int turn = 0; turn < 2; turn++)
        assert_true(sizes_hide(false));
    assert_int_equal(pm_classes[class_in(pm_bin_offset, 6200)].size, 6208);
    p = alloc_slow(klass, 4360); /* the other one may have gone home, at rest for so long */
    free_block(p);
    assert_ptr_equal(bin_pop(bin_of_size(my_heap, 4360)), p);
    free_block(p);
    give(n);
}

#define ROUNDS 200

/* Sizes that go up and down, for as long as a number can be had; what is read of a class outlives all of it. */
TEST(numbers_go_upwards_only)
{
    uint32_t sizes[CLASS_MAX] = {0};
    static unsigned old[ROUNDS];
    static size_t asked[ROUNDS];
    unsigned again = 0;
    for (int round = 0; round < ROUNDS; round++) {
        asked[round] = (size_t)(2100 + round * 7919 % 26011);
        old[round] = class_of(asked[round]);
        give(take_bytes(8 * MIB, asked[round]));
        pm_learn.changes = pm_learn.changes > 8 ? 8 : pm_learn.changes; /* as dear as at first */
        for (unsigned c = 0; c < pm_class_count; c++) {
            assert_true(pm_classes[c].size >= sizes[c]);
            again += sizes[c] != 0 && pm_classes[c].size > sizes[c];
            sizes[c] = pm_classes[c].size;
        }
        for (int r = 0; r <= round; r++) { /* whoever read the table long ago */
            void *p = alloc_slow(old[r], asked[r]);
            assert_true(block_size_of(p) >= asked[r]);
            free_block(p);
        }
        pools_trim();
    }
    assert_int_equal(pm_class_count, CLASS_MALLOC_MAX);
    assert_true(again > 0);
    for (size_t size = 1; size <= 32768; size++)
        assert_true(pm_classes[class_of(size)].size >= size);
    assert_int_equal(class_of(32769), CLASS_NONE);
}

TEST(changes_are_bounded)
{
    uint32_t before;
    pm_learn.changes = LEARN_CHANGES;
    before = pm_class_count;
    for (size_t size = 2100; size < 32000; size += 1999)
        give(take_bytes(8 * MIB, size));
    assert_int_equal(pm_learn.changes, LEARN_CHANGES);
    assert_int_equal(pm_class_count, before);
}

TEST(nothing_is_kept_of_what_is_gone)
{
    pools_trim();
    for (unsigned c = 0; c < pm_class_count; c++)
        assert_int_equal(pm_learn.slabs[c], 0);
    for (size_t i = 1; i < LEARN_SIZES; i++)
        assert_int_equal(pm_learn_held[i], 0);
}

int main(void)
{
    static char check[] = "POOLMALLOC_HUGEPAGES=never";
    char *settings[] = {check, NULL};
    pools_start(settings);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_few_blocks_teach_nothing),      cmocka_unit_test(many_of_one_size_get_theirs),
        cmocka_unit_test(what_fits_already_teaches_nothing), cmocka_unit_test(blocks_of_nothing_teach_nothing),
        cmocka_unit_test(aligned_requests_lie_as_before),    cmocka_unit_test(hidden_sizes_are_learned_too),
        cmocka_unit_test(numbers_go_upwards_only),         cmocka_unit_test(changes_are_bounded),
        cmocka_unit_test(nothing_is_kept_of_what_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
