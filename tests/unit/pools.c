/* pools.c: classes, slabs, heaps and the depot, step by step, with every check after every step. */
#include "unit.h"
#include "meet.h"
#include "start.h"

#include "pools/rest.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The clock of these tests stands still unless it is moved: what they find does not depend on the machine's speed. */
static uint64_t clock_ms = 1000000;
uint64_t __wrap_os_now_ms(void);
uint64_t __wrap_os_now_ms(void) { return clock_ms; }

static void *take(size_t size)
{
    void *p = take_class(class_of(size));
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % QUANTUM, 0);
    pools_check();
    return p;
}

static void give(void *p)
{
    free_block(p);
    pools_check();
}

static size_t used_of(size_t size)
{
    pm_stats s;
    stats_copy(&s, sizeof s, true);
    return s.row[class_of(size)].used;
}

TEST(every_size_has_its_class)
{
    for (size_t size = 0; size <= 32768; size++) {
        unsigned c = class_of(size);
        assert_true(pm_classes[c].size >= size);
        assert_true(c == 0 || pm_classes[c - 1].size < size);
        assert_true(size < 65 || pm_classes[c].size <= size + size / 4 + 16);
    }
    assert_int_equal(class_of(32769), CLASS_NONE);
    assert_int_equal(class_of(BLOCK_MAX), CLASS_NONE);
}

TEST(aligned_classes_are_aligned)
{
    for (size_t align = 1; align <= 4096; align *= 2)
        for (size_t size = 0; size <= 32768; size += 13) {
            unsigned c = class_aligned(size, align);
            if (c == CLASS_NONE)
                continue;
            assert_true(pm_classes[c].size >= size && pm_classes[c].size % align == 0);
        }
    assert_int_not_equal(class_aligned(4000, 4096), CLASS_NONE);
    assert_int_not_equal(class_aligned(1, 64), CLASS_NONE);
    assert_int_equal(class_aligned(40000, 64), CLASS_NONE);
}

TEST(aligned_blocks_are_aligned)
{
    static void *p[300];
    for (size_t align = 16; align <= 4096; align *= 2)
        for (size_t size = 1; size <= 8192; size = size * 2 + 7) {
            unsigned c = class_aligned(size, align);
            for (int i = 0; i < 300 && c != CLASS_NONE; i++)
                assert_int_equal((uintptr_t)(p[i] = take_class(c)) % align, 0);
            for (int i = 0; i < 300 && c != CLASS_NONE; i++)
                free_block(p[i]);
        }
    pools_check();
}

/* The first blocks of large classes do not all fall into the same sets of a cache. */
TEST(slabs_have_colours)
{
    static void *p[400];
    unsigned c = class_of(5000), different = 0;
    for (int i = 0; i < 400; i++)
        p[i] = take_class(c);
    for (int i = 1; i < 400; i++)
        different += slab_of(p[i]) != slab_of(p[i - 1]) && (uintptr_t)p[i] % SLAB_SIZE != (uintptr_t)p[0] % SLAB_SIZE;
    assert_true(different > 10);
    for (int i = 0; i < 400; i++)
        free_block(p[i]);
    pools_check();
}

TEST(last_freed_comes_first)
{
    void *a = take(48), *b = take(48);
    assert_ptr_not_equal(a, b);
    give(a);
    assert_ptr_equal(take(40), a);
    give(a);
    give(b);
}

TEST(a_slab_fills_and_empties)
{
    static void *p[3000];
    size_t before = used_of(4096), n = 10 * SLAB_SIZE / 4096;
    uint64_t emptied = meetings_with("slab_empty");
    for (size_t i = 0; i < n; i++)
        memset(p[i] = take(4096), (int)i, 4096);
    assert_int_equal(used_of(4096), before + n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(((unsigned char *)p[i])[4095], (unsigned char)i);
    for (size_t i = 0; i < n; i += 2)
        give(p[i]);
    assert_int_equal(used_of(4096), before + n / 2);
    for (size_t i = 1; i < n; i += 2)
        give(p[i]);
    assert_int_equal(used_of(4096), before);
    assert_true(meetings_with("slab_empty") >= emptied + 2);
}

static void take_and_give(size_t size, int n)
{
    static void *p[8000];
    for (int i = 0; i < n; i++)
        assert_non_null(p[i] = take_class(class_of(size)));
    for (int i = 0; i < n; i++)
        free_block(p[i]);
    pools_check();
}

/* What a bin has no room for goes to the slab's chain, and comes back from there as it lies, or in order. */
TEST(a_full_bin_passes_on)
{
    static void *p[4000];
    thread_idle();
    const bin *b = &my_heap->bins[class_of(208)];
    int n = 0;
    do
        p[n] = take(208);
    while (++n < 40 || b->partial || b->free);
    uint64_t spliced = meetings_with("splice_chain"), ordered = meetings_with("chain_to_bits");
    for (int i = 0; i < 40; i++)
        give(p[i]);
    assert_true(b->room == 0 && slab_of(p[39])->chain == p[39]);
    for (int i = 0; i < 40; i++)
        p[i] = take(208);
    assert_true(meetings_with("splice_chain") > spliced);
    for (int i = 0; i < n - 40; i++)
        give(p[i]);
    for (int i = 0; i < n - 40; i++)
        p[i] = take(208);
    assert_true(meetings_with("chain_to_bits") > ordered);
    for (int i = 0; i < n; i++)
        give(p[i]);
    assert_int_equal(used_of(208), 0);
}

/* Each refill gets twice as much as the one before, a thread at rest begins anew. */
TEST(refills_gather_pace)
{
    const bin *b = &my_heap->bins[class_of(160)];
    thread_idle();
    assert_int_equal(b->pace, 0);
    void *first = take(160);
    assert_in_range(b->limit - b->room, 1, 16 * 64 / 160);
    give(first);
    take_and_give(160, 4000);
    assert_true(b->pace >= PACE_MOST);
    thread_idle();
    assert_int_equal(b->pace, 0);
    assert_int_equal(used_of(160), 0);
}

TEST(zeroed_is_zero)
{
    for (size_t size = 16; size <= 32768; size *= 2)
        for (int round = 0; round < 40; round++) {
            unsigned char *p = take_zeroed(class_of(size));
            for (size_t i = 0; i < size; i++)
                assert_int_equal(p[i], 0);
            memset(p, 0xff, size);
            give(p);
        }
}

static void *free_all(void *blocks)
{
    for (void **p = blocks; *p; p++)
        free_block(*p);
    return NULL;
}

static void *nothing(void *unused)
{
    free_block(take_class(0));
    return unused;
}

TEST(another_thread_frees)
{
    static void *p[1001];
    pthread_t t;
    size_t before = used_of(80);
    for (int i = 0; i < 1000; i++)
        p[i] = take(80);
    pthread_create(&t, NULL, free_all, p);
    pthread_join(t, NULL);
    assert_int_equal(used_of(80), before);
    pools_check();
    for (int i = 0; i < 1000; i++) /* they come home when asked for */
        p[i] = take(80);
    for (int i = 0; i < 1000; i++)
        give(p[i]);
}

enum { PRODUCERS = 32, EACH = 2000 };
static void *made[PRODUCERS][EACH];
static pthread_barrier_t all_made, all_freed;

static void *produce(void *number)
{
    for (int i = 0; i < EACH; i++)
        made[(uintptr_t)number][i] = take_class(class_of(64));
    pthread_barrier_wait(&all_made);
    pthread_barrier_wait(&all_freed);
    return NULL;
}

/* A thread that frees for many others by turns does not send each block alone. */
TEST(runs_are_collected_for_many_at_once)
{
    pthread_t t[PRODUCERS];
    pthread_barrier_init(&all_made, NULL, PRODUCERS + 1);
    pthread_barrier_init(&all_freed, NULL, PRODUCERS + 1);
    for (uintptr_t i = 0; i < PRODUCERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, produce, (void *)i), 0);
    pthread_barrier_wait(&all_made);
    uint64_t blocks = my_heap->blocks_sent, runs = my_heap->runs_sent;
    for (int i = 0; i < EACH; i++)
        for (int n = 0; n < PRODUCERS; n++)
            free_block(made[n][i]);
    heap_enter(my_heap);
    heap_flush(my_heap);
    heap_leave(my_heap);
    blocks = my_heap->blocks_sent - blocks;
    assert_int_equal(blocks, PRODUCERS * EACH);
    assert_in_range(blocks / (my_heap->runs_sent - runs), 16, 64);
    pthread_barrier_wait(&all_freed);
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(t[i], NULL);
    pools_check();
    assert_int_equal(used_of(64), 0);
}

static void *take_many(void *unused)
{
    (void)unused;
    void **p = calloc(1001, sizeof *p);
    for (int i = 0; i < 1000; i++)
        p[i] = take_class(class_of(208));
    return p;
}

/* Blocks of a thread that is gone are freed into its idle heap; their slabs are then taken over. */
TEST(an_idle_heap_is_adopted)
{
    pthread_t t;
    void *p;
    pthread_create(&t, NULL, take_many, NULL);
    pthread_join(t, &p);
    free_all((void **)p + 500); /* the others keep the slabs */
    thread_idle();
    uint64_t adoptions = meetings_with("adopt");
    void *q[400];
    for (int i = 0; i < 400; i++)
        q[i] = take(208);
    assert_true(meetings_with("adopt") > adoptions);
    for (int i = 0; i < 400; i++)
        give(q[i]);
    ((void **)p)[500] = NULL;
    free_all(p);
    free(p);
}

TEST(threads_share_heaps_one_after_another)
{
    uint32_t count = 0;
    for (int i = 0; i < 200; i++) {
        pthread_t t;
        pthread_create(&t, NULL, nothing, NULL);
        pthread_join(t, NULL);
        if (i == 0)
            count = pm_registry.count;
    }
    assert_int_equal(pm_registry.count, count);
    pools_check();
}

TEST(trim_gives_pages_back)
{
    static void *p[20000];
    for (int i = 0; i < 20000; i++)
        memset(p[i] = take_class(class_of(1000)), 1, 1000);
    for (int i = 0; i < 20000; i++)
        free_block(p[i]);
    pools_trim();
    pools_check();
    pm_stats s;
    stats_copy(&s, sizeof s, true);
    assert_int_equal(s.empty_slabs, 0);
    assert_true(s.resident_bytes < 4 * MIB);
    uint64_t reuses = meetings_with("slab_reuse");
    for (int i = 0; i < 1000; i++)
        p[i] = take(1000);
    assert_true(meetings_with("slab_reuse") > reuses);
    for (int i = 0; i < 1000; i++)
        give(p[i]);
}

enum { FALL = 60000 };
static void *fallen[FALL];

static void rise(void)
{
    for (int i = 0; i < FALL; i++)
        assert_non_null(fallen[i] = take_class(class_of(300)));
}

/* What falls may cost in a purge delay is not used up by the tests before. */
static void falls_begin_anew(void) { my_heap->rest.fell = 0; }

static void rise_and_fall(void)
{
    uint64_t r = 1;
    rise();
    for (int i = FALL - 1; i > 0; i--) {
        r = r * 6364136223846793005u + 1442695040888963407u;
        int j = (int)((r >> 33) % (uint64_t)(i + 1));
        void *p = fallen[i];
        fallen[i] = fallen[j], fallen[j] = p;
    }
    for (int i = 0; i < FALL; i++)
        free_block(fallen[i]);
}

static void fall_at_random(void)
{
    falls_begin_anew();
    rise_and_fall();
}

/* The last blocks would each keep a slab, if the bin kept them. */
TEST(the_end_of_a_fall_leaves_nothing_at_hand)
{
    fall_at_random();
    const bin *b = &my_heap->bins[class_of(300)];
    pm_stats s;
    assert_int_equal(b->limit, 0);
    assert_null(b->free);
    stats_copy(&s, sizeof s, true);
    assert_int_equal(s.row[class_of(300)].slabs, 0);
    pools_check();
}

/* One at a time as long as its thread is nearly idle; once it is busy, all is as before. */
TEST(a_heap_stays_down_while_its_thread_is_nearly_idle)
{
    fall_at_random();
    const bin *b = &my_heap->bins[class_of(300)];
    for (int i = 0; i < 1000; i++) {
        clock_ms++;
        void *p = take(300);
        assert_null(b->free);
        give(p);
        assert_null(b->free);
    }
    for (int i = 0; i < 100; i++)
        give(take(300));
    assert_int_equal(b->limit, pm_classes[class_of(300)].limit);
    assert_non_null(b->free);
}

/* Twice as many each time that it runs empty after blocks went to its slab; half as many at each look. */
TEST(a_bin_that_runs_full_and_empty_keeps_more)
{
    enum { MANY = 200 };
    void *p[MANY];
    const size_class *c = &pm_classes[class_of(256)];
    bin *b = &my_heap->bins[class_of(256)];
    thread_idle();
    assert_int_equal(b->limit, c->limit);
    void *stays = take(256); /* without it each round would be a fall */
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < MANY; i++)
            p[i] = take(256);
        for (int i = 0; i < MANY; i++)
            give(p[i]);
    }
    assert_int_equal(b->limit, 4 * c->limit);
    heap_enter(my_heap);
    rest_calm(my_heap, b);
    assert_int_equal(b->limit, 2 * c->limit);
    for (int i = 0; i < 3; i++)
        rest_calm(my_heap, b);
    heap_leave(my_heap);
    assert_int_equal(b->limit, c->limit);
    give(stays);
    pools_check();
}

/* They are chance where the program still has a block of that size; where it has none, that has come down. */
TEST(few_slabs_near_their_end_are_no_fall)
{
    void *p[200];
    const bin *b = &my_heap->bins[class_of(512)];
    falls_begin_anew();
    for (int kept = 1; kept >= 0; kept--) {
        thread_idle();
        for (int i = 0; i < 200; i++)
            p[i] = take(512);
        for (int i = kept; i < 200; i++)
            give(p[i]);
        assert_int_equal(b->free != NULL, kept);
        assert_int_equal(b->limit > 0, kept);
        if (kept)
            give(p[0]);
    }
    thread_idle();
}

/* Blocks of other sizes, too few for a slow path of their own when they are freed, keep no slab either. */
TEST(a_thread_that_comes_down_keeps_no_slab)
{
    enum { SIZES = 16, OF_EACH = 3 };
    void *p[SIZES][OF_EACH];
    thread_idle();
    for (int i = 0; i < SIZES; i++)
        for (int j = 0; j < OF_EACH; j++)
            p[i][j] = take_class(class_of(512) + (unsigned)i);
    for (int i = 0; i < SIZES / 2; i++)
        for (int j = 0; j < OF_EACH; j++)
            free_block(p[i][j]);
    uint64_t before = meetings_with("comes_down");
    fall_at_random();
    assert_true(meetings_with("comes_down") > before);
    for (int i = SIZES / 2; i < SIZES; i++)
        for (int j = 0; j < OF_EACH; j++)
            give(p[i][j]);
    pm_stats s;
    stats_copy(&s, sizeof s, true);
    for (size_t i = 0; i < SIZES; i++)
        assert_int_equal(s.row[class_of(512) + i].slabs, 0);
}

enum { LONG_MOST = 3 * SLAB_BLOCKS_MAX };
static void *held_at_hand[LONG_MOST];
static size_t held_count;

static size_t held_of(size_t size)
{
    const bin *b = &my_heap->bins[class_of(size)];
    return (size_t)(b->limit - b->room);
}

/* Nearly a whole slab's blocks at hand: they came back from elsewhere, and are taken as they lie. */
static void hold_a_slab_at_hand(size_t size)
{
    size_t per_slab = pm_classes[class_of(size)].per_slab, first = held_count;
    for (size_t i = 0; i < 2 * per_slab; i++)
        assert_non_null(held_at_hand[held_count++] = take_class(class_of(size)));
    slab *whole = slab_of(held_at_hand[first + per_slab]);
    size_t kept = first;
    for (size_t i = first; i < held_count; i++) {
        if (slab_of(held_at_hand[i]) == whole && i != first + per_slab)
            block_send(whole, held_at_hand[i]);
        else
            held_at_hand[kept++] = held_at_hand[i];
    }
    for (held_count = kept; held_of(size) < per_slab / 2;)
        assert_non_null(held_at_hand[held_count++] = take_class(class_of(size)));
}

/* What one free does is bounded, however much is at hand; the rest goes with the next falls. */
TEST(a_thread_comes_down_step_by_step)
{
    static const size_t sizes[] = {16, 32, 48};
    size_t before = 0, after = 0;
    thread_idle();
    held_count = 0;
    for (size_t i = 0; i < 3; i++)
        hold_a_slab_at_hand(sizes[i]);
    for (size_t i = 0; i < 3; i++)
        before += held_of(sizes[i]);
    uint64_t downs = meetings_with("comes_down");
    fall_at_random();
    assert_int_equal(meetings_with("comes_down"), downs + 1);
    for (size_t i = 0; i < 3; i++)
        after += held_of(sizes[i]);
    assert_true(before > SLAB_BLOCKS_MAX);
    assert_in_range(before - after, 1, SLAB_BLOCKS_MAX + 4 * 256); /* and what has rested since the fall before */
    pools_check();
    for (int i = 0; i < 1000; i++) /* busy again, so that there is a next fall */
        free_block(take_class(class_of(300)));
    fall_at_random();
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(held_of(sizes[i]), 0);
    pools_check();
    while (held_count > 0)
        free_block(held_at_hand[--held_count]);
    pools_check();
}

/* Where nothing is ever purged, what a heap has used up of its falls comes back all the same. */
TEST(falls_go_on_without_purging)
{
    pm_config.purge_delay = DELAY_NEVER;
    my_heap->rest.fell = 1 << 20;
    my_heap->rest.renewed = (uint32_t)clock_ms;
    rise_and_fall();
    const bin *b = &my_heap->bins[class_of(300)];
    assert_int_not_equal(b->limit, 0);
    clock_ms += 10000;
    rise_and_fall();
    assert_int_equal(b->limit, 0);
    pm_config.purge_delay = 1000;
}

TEST(idleness_ends_a_fall)
{
    fall_at_random();
    const bin *b = &my_heap->bins[class_of(300)];
    assert_int_equal(b->limit, 0);
    thread_idle();
    assert_int_equal(b->limit, pm_classes[class_of(300)].limit);
    assert_int_equal(b->room, b->limit);
    pools_check();
}

static size_t resident(void)
{
    pm_stats s;
    stats_copy(&s, sizeof s, true);
    return s.resident_bytes;
}

/* Every second page of a slab is free. */
TEST(trim_gives_pages_between_blocks_back)
{
    static void *p[4096];
    if (os_page_size() > 4096)
        skip();
    pools_trim();
    for (int i = 0; i < 4096; i++)
        p[i] = memset(take_class(class_of(4096)), i, 4096);
    size_t full = resident();
    for (int i = 1; i < 4096; i += 2)
        free_block(p[i]);
    assert_true(pools_trim() >= 7 * MIB);
    assert_true(resident() < full - 7 * MIB);
    assert_true(pools_trim() < MIB); /* that was all */
    pools_check();
    char expected[4096];
    for (int i = 0; i < 4096; i += 2) {
        assert_memory_equal(p[i], memset(expected, i, sizeof expected), sizeof expected);
        free_block(p[i]);
    }
}

static size_t resident_of(size_t size)
{
    pm_stats s;
    stats_copy(&s, sizeof s, true);
    return s.row[class_of(size)].resident_bytes;
}

enum { SPARSE = 4096 };
static void *sparse[SPARSE];

/* Frees all but the first of each `one_in`. */
static void make_sparse(int one_in)
{
    for (int i = 0; i < SPARSE; i++)
        sparse[i] = memset(take_class(class_of(4096)), i, 4096);
    for (int i = 0; i < SPARSE; i++)
        if (i % one_in)
            free_block(sparse[i]);
}

static void end_sparse(int one_in)
{
    char expected[4096];
    for (int i = 0; i < SPARSE; i += one_in) {
        assert_memory_equal(sparse[i], memset(expected, i, sizeof expected), sizeof expected);
        free_block(sparse[i]);
    }
    pools_check();
}

/* What a few blocks keep of a slab, when the thread comes down, is not the whole slab; but only so many slabs in a while. */
TEST(sparse_slabs_give_pages_back)
{
    if (os_page_size() > 4096)
        skip();
    pools_trim();
    clock_ms += 10000;
    make_sparse(SLAB_SIZE / 4096);
    size_t before = resident_of(4096);
    uint64_t thinned = meetings_with("slab_thins");
    fall_at_random();
    thinned = meetings_with("slab_thins") - thinned;
    assert_in_range(thinned, 16, 64);
    assert_true(resident_of(4096) < before - thinned * (SLAB_SIZE - 10 * 4096));
    pools_check();
    end_sparse(SLAB_SIZE / 4096);
}

/* Of a thread that is nearly idle, what has been at rest for the purge delay. */
TEST(slabs_at_rest_give_pages_back)
{
    if (os_page_size() > 4096)
        skip();
    pools_trim();
    fall_at_random();
    make_sparse(2);
    fall_at_random();
    size_t before = resident_of(4096);
    for (int i = 0; i < 16 * CALM * CLASS_MAX; i++) {
        clock_ms++;
        free_block(take_class(class_of(300)));
    }
    assert_true(resident_of(4096) < before - 5 * MIB);
    pools_check();
    end_sparse(2);
}

/* Much lies purged, and what is purged last is not what is taken first: that the same amount is needed again and again is
 * noticed all the same. */
TEST(regrets_are_counted_by_amount)
{
    enum { LARGE = 4 * FALL, CYCLES = 12 };
    static void *large[LARGE];
    for (int i = 0; i < LARGE; i++)
        large[i] = take_class(class_of(1000));
    for (int i = 0; i < LARGE; i++)
        free_block(large[i]);
    pools_trim();
    clock_ms += 150;
    pm_depot.regrets = 0;
    uint64_t before = 0;
    for (int cycle = 0; cycle < CYCLES; cycle++) {
        before = pm_depot.purges;
        rise();
        for (int i = 0; i < FALL; i++)
            free_block(fallen[i]);
    }
    assert_true(pm_depot.regrets > 0);
    assert_true(pm_depot.purges - before < 40); /* of 146 slabs in the last cycle */
    pools_trim();
}

static size_t huge_units(void)
{
    size_t n = 0;
    for (size_t i = 0; i + UNIT_SLABS <= pm_depot.fresh; i += UNIT_SLABS)
        n += pm_region.slabs[i].unit_huge;
    return n;
}

static bool all_clean(const slab *unit)
{
    size_t n = 0;
    while (n < UNIT_SLABS && unit[n].state == SLAB_CLEAN)
        n++;
    return n == UNIT_SLABS;
}

static size_t huge_units_in_use(void)
{
    size_t n = 0;
    for (size_t i = 0; i + UNIT_SLABS <= pm_depot.fresh; i += UNIT_SLABS)
        n += pm_region.slabs[i].unit_huge && !all_clean(&pm_region.slabs[i]);
    return n;
}

/* Purged slab by slab, in any order, a unit is as good as fresh once all of it is: its slabs are taken together, in order, and
 * it may have huge pages again. */
TEST(a_purged_unit_begins_anew)
{
    fall_at_random();
    pools_trim();
    size_t units = 0;
    for (const slab *s = pm_depot.clean.first; s; s = s->next)
        if (s == slab_unit(s) && all_clean(s)) {
            units++; /* and none but whole ones behind it */
            for (size_t i = 1; i < UNIT_SLABS; i++) {
                s = s->next;
                assert_ptr_equal(s, slab_unit(s) + i);
            }
        } else {
            assert_int_equal(units, 0);
        }
    assert_true(units > 4);
    assert_int_equal(huge_units(), 0);
    pm_config.hugepages = HUGEPAGES_ALWAYS;
    rise();
    assert_true(huge_units() > 4);
    pm_config.hugepages = HUGEPAGES_NEVER;
    for (int i = 0; i < FALL; i++)
        free_block(fallen[i]);
    pools_trim();
    pools_check();
}

/* What a fall sent back slab by slab and is needed again at once comes back in huge pages, though not as much is full yet as fresh
 * units are begun with. */
TEST(what_swings_gets_huge_pages)
{
    enum { SWING = 2 * FALL };
    static void *swings[SWING];
    pools_trim();
    clock_ms += 150;
    pm_depot.regrets = 0;
    pm_config.hugepages = HUGEPAGES_AUTO;
    size_t huge[2];
    for (int cycle = 0; cycle < 2; cycle++) {
        for (int i = 0; i < SWING; i++)
            swings[i] = take_class(class_of(1000));
        huge[cycle] = huge_units_in_use();
        for (int i = 0; i < SWING; i++)
            free_block(swings[(size_t)i * 7919 % SWING]);
    }
    pm_config.hugepages = HUGEPAGES_NEVER;
    pools_trim();
    pools_check();
    assert_in_range(huge[0], 4, SWING * 1000 / UNIT_SIZE - 8);
    assert_in_range(huge[1], SWING * 1000 / UNIT_SIZE - 4, SWING);
}

/* Half of each slab is free, in pages: a huge page stays whole for that, and goes when one block in 64 is left. */
TEST(trim_splits_only_sparse_units)
{
    static void *p[16384];
    if (os_page_size() > 4096)
        skip();
    pools_trim();
    pm_config.hugepages = HUGEPAGES_ALWAYS;
    for (int i = 0; i < 16384; i++)
        p[i] = take_class(class_of(4096));
    pm_config.hugepages = HUGEPAGES_NEVER;
    size_t huge = huge_units();
    assert_true(huge > 20);
    for (int i = 1; i < 16384; i += 2)
        free_block(p[i]);
    pools_trim();
    assert_in_range(huge_units(), huge - 2, huge); /* the last ones may have been sparse */
    for (int i = 2; i < 16384; i += 2)
        if (i % 64)
            free_block(p[i]);
    pools_trim();
    assert_true(huge_units_in_use() < huge / 4);
    for (int i = 0; i < 16384; i += 64)
        free_block(p[i]);
    pools_trim();
    pools_check();
}

TEST(a_thread_without_heap_is_served)
{
    thread_exit(my_heap);
    assert_ptr_equal(my_heap, HEAP_GONE);
    void *p[100];
    for (int i = 0; i < 100; i++)
        memset(p[i] = take(64), i, 64);
    for (int i = 0; i < 100; i++)
        give(p[i]);
    my_heap = HEAP_NONE;
}

/* The constant heaps can be written to; nobody may. */
TEST(constant_heaps_are_checked)
{
    int said[2], status;
    assert_int_equal(pipe(said), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(said[1], 2);
        pm_no_heaps[NO_HEAPS_BYTES - 1] = 1;
        pools_check();
        _exit(0);
    }
    close(said[1]);
    char line[200];
    ssize_t length = read(said[0], line, sizeof line - 1);
    close(said[0]);
    line[length > 0 ? length : 0] = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(line, "constant heaps"));
}

static int times_told(const slab *which)
{
    int n = 0;
    for (slab *lists[] = {my_heap->inbox, my_heap->told}, **l = lists; l < lists + 2; l++)
        for (const slab *s = *l; s && n < 10; s = s->told)
            n += s == which;
    return n;
}

/* A fork comes while one slab has been told of, and a thread is just about to tell of another one. */
TEST(children_are_told_once)
{
    static void *p[2001], *given[2];
    for (int i = 0; i < 2000; i++)
        p[i] = take(80);
    slab *told = slab_of(p[0]), *untold = slab_of(p[1999]);
    given[0] = p[0];
    pthread_t t;
    pthread_create(&t, NULL, free_all, given);
    pthread_join(t, NULL);
    __atomic_fetch_or(&untold->remote, REMOTE_TOLD, __ATOMIC_RELAXED);
    pm_tellers++;
    int status;
    pid_t child = fork();
    if (child == 0) {
        if (times_told(told) != 1 || times_told(untold) != 1 || pm_tellers != 0)
            _exit(1);
        pools_trim();
        pools_check();
        _exit(times_told(told) + times_told(untold) + (untold->remote & REMOTE_TOLD ? 1 : 0));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(times_told(untold), 0);
    __atomic_fetch_and(&untold->remote, ~REMOTE_TOLD, __ATOMIC_RELAXED);
    pm_tellers--;
    free_all(p + 1);
    pools_check();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_has_its_class),
        cmocka_unit_test(aligned_classes_are_aligned),
        cmocka_unit_test(aligned_blocks_are_aligned),
        cmocka_unit_test(slabs_have_colours),
        cmocka_unit_test(last_freed_comes_first),
        cmocka_unit_test(a_slab_fills_and_empties),
        cmocka_unit_test(a_full_bin_passes_on),
        cmocka_unit_test(refills_gather_pace),
        cmocka_unit_test(the_end_of_a_fall_leaves_nothing_at_hand),
        cmocka_unit_test(a_heap_stays_down_while_its_thread_is_nearly_idle),
        cmocka_unit_test(a_bin_that_runs_full_and_empty_keeps_more),
        cmocka_unit_test(few_slabs_near_their_end_are_no_fall),
        cmocka_unit_test(a_thread_that_comes_down_keeps_no_slab),
        cmocka_unit_test(a_thread_comes_down_step_by_step),
        cmocka_unit_test(falls_go_on_without_purging), cmocka_unit_test(idleness_ends_a_fall),
        cmocka_unit_test(zeroed_is_zero),
        cmocka_unit_test(another_thread_frees),
        cmocka_unit_test(an_idle_heap_is_adopted),
        cmocka_unit_test(threads_share_heaps_one_after_another),
        cmocka_unit_test(trim_gives_pages_back),
        cmocka_unit_test(trim_gives_pages_between_blocks_back),
        cmocka_unit_test(sparse_slabs_give_pages_back),
        cmocka_unit_test(slabs_at_rest_give_pages_back),
        cmocka_unit_test(runs_are_collected_for_many_at_once),
        cmocka_unit_test(a_thread_without_heap_is_served),
        cmocka_unit_test(constant_heaps_are_checked),
        cmocka_unit_test(children_are_told_once),
        cmocka_unit_test(regrets_are_counted_by_amount),
        cmocka_unit_test(a_purged_unit_begins_anew),
        cmocka_unit_test(what_swings_gets_huge_pages),
        cmocka_unit_test(trim_splits_only_sparse_units),
    };
    static char small_pages[] = "POOLMALLOC_HUGEPAGES=never"; /* so that every empty slab can be purged */
    static char *settings[] = {small_pages, NULL};
    pools_start(settings);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
