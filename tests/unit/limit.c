/* limit.c: POOLMALLOC_LIMIT, pre-allocation, and what a thread at the limit does before it gives up. */
#include "unit.h"
#include "start.h"

#include <pthread.h>
#include <string.h>

#define MANY 20000
static void *blocks[MANY];

static size_t take_all(size_t size)
{
    size_t n = 0;
    while (n < MANY && (blocks[n] = take_class(class_of(size))) != NULL)
        n++;
    pools_check();
    return n;
}

static void give_all(size_t n)
{
    while (n > 0)
        free_block(blocks[--n]);
    pools_check();
}

TEST(counts_are_reserved)
{
    pm_stats s;
    stats_copy(&s, sizeof s, true);
    assert_int_equal(s.row[class_of(128)].waiting_slabs, 2);
    assert_true(s.resident_bytes >= 2 * SLAB_SIZE); /* prefaulted */
}

TEST(the_limit_holds)
{
    for (int round = 0; round < 3; round++) {
        size_t n = take_all(2048);
        pm_stats s;
        stats_copy(&s, sizeof s, true);
        assert_true(n > 4 * MIB / 2048 && n < 16 * MIB / 2048);
        assert_true(s.committed_bytes <= 16 * MIB);
        assert_true(s.limit_hits > 0);
        give_all(n);
    }
}

TEST(at_the_limit_larger_blocks_serve)
{
    void *kept = take_class(class_of(3072));
    size_t n = take_all(2048);
    assert_int_equal(block_size_of(blocks[n - 1]), 3072);
    give_all(n);
    free_block(kept);
}

static pthread_barrier_t barrier;

static void *hold_empty_slabs(void *unused)
{
    size_t n = take_all(512);
    give_all(n);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return unused;
}

/* A sleeping thread's empty slabs, and blocks that came back to it, are had at the limit. */
TEST(at_the_limit_sleepers_give)
{
    pthread_t t;
    pthread_barrier_init(&barrier, NULL, 2);
    pthread_create(&t, NULL, hold_empty_slabs, NULL);
    pthread_barrier_wait(&barrier);
    size_t n = take_all(4096);
    assert_true(n * 4096 > 12 * MIB);
    give_all(n);
    pthread_barrier_wait(&barrier);
    pthread_join(t, NULL);
}

static void *thread_of_many(void *unused)
{
    void *p = take_class(0); /* there are more heaps than slabs within the limit: NULL is an answer */
    if (p)
        free_block(p);
    pthread_barrier_wait(&barrier);
    return unused;
}

/* A quarter of the limit is for heaps at most; threads beyond that share one. */
TEST(threads_beyond_the_limit_share)
{
    static pthread_t t[1100];
    pools_trim();
    pthread_barrier_init(&barrier, NULL, 1101);
    for (int i = 0; i < 1100; i++)
        assert_int_equal(pthread_create(&t[i], NULL, thread_of_many, NULL), 0);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 1100; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(pm_registry.count, 16 * MIB / 4 / pm_registry.stride); /* prefaulted: all of each counts */
    pools_check();
}

static size_t committed(void)
{
    pm_stats s;
    stats_copy(&s, sizeof s, false);
    return s.committed_bytes;
}

static size_t touched(void)
{
    size_t sum = 0;
    for (size_t i = 0; i < pm_depot.fresh; i++)
        sum += pm_region.slabs[i].touched;
    return sum;
}

/* What counts is pages in use, not slabs: one block each of many slabs is a page each. */
TEST(pages_count)
{
    pools_trim();
    assert_int_equal(pm_depot.touched, touched());
    size_t before = committed();
    void *small = take_class(class_of(16)), *large = take_class(class_of(32768));
    assert_true(committed() >= before + 36 * KIB && committed() <= before + 40 * KIB);
    free_block(large);
    free_block(small);
    pools_trim();
    assert_true(committed() <= before);
    size_t n = take_all(4096);
    assert_int_equal(pm_depot.touched, touched());
    assert_true(committed() <= 16 * MIB && committed() + 4096 > 16 * MIB - 256 * KIB); /* heaps' share apart */
    give_all(n);
    n = take_all(32768); /* pages of slabs that hold too few for one */
    assert_int_equal(pm_depot.touched, touched());
    assert_true(n * 32768 > 8 * MIB);
    give_all(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_reserved),          cmocka_unit_test(the_limit_holds),
        cmocka_unit_test(at_the_limit_larger_blocks_serve), cmocka_unit_test(at_the_limit_sleepers_give),
        cmocka_unit_test(pages_count),                  cmocka_unit_test(threads_beyond_the_limit_share),
    };
    static char limit[] = "POOLMALLOC_LIMIT=16M", prefault[] = "POOLMALLOC_PREFAULT=1";
    static char sizes[] = "POOLMALLOC_BLOCK_SIZES=16,128:2000,512,2048,3072,4096,32768";
    static char *settings[] = {limit, prefault, sizes, NULL};
    pools_start(settings);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
