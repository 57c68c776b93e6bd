/* explicit.c: pools and arenas of the C API, step by step, with the check after every step. */
#include "unit.h"
#include "start.h"

#include <poolmalloc.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 10000

static const pm_sharing sharings[] = {PM_SHARING_THREADS, PM_SHARING_LOCKED, PM_SHARING_NONE};
static void *blocks[MANY];

static pm_pool_options options_of(size_t size, pm_sharing sharing)
{
    return (pm_pool_options){.struct_size = sizeof(pm_pool_options), .block_size = size, .sharing = sharing};
}

static pm_pool *create(const pm_pool_options *o)
{
    pm_pool *pool = pm_pool_create(o);
    assert_non_null(pool);
    pool_check(pool);
    return pool;
}

static pm_pool_stats stats_of(pm_pool *pool)
{
    pm_pool_stats s = {.struct_size = sizeof s};
    pm_pool_stats_get(pool, &s);
    pool_check(pool);
    return s;
}

static size_t size_of_least(size_t a, size_t b) { return a < b ? a : b; }

/* Slabs of arenas, and those of all records, of which one stays when there are no records any more. */
static size_t arena_slabs(void)
{
    size_t n = 0;
    for (size_t i = 0; i < pm_depot.fresh; i++) {
        const slab *s = &pm_region.slabs[i];
        n += slab_in_use(s) && s->home == HEAP_POOL && !s->pool;
    }
    return n;
}

static size_t take(pm_pool *pool, size_t n)
{
    size_t got = 0;
    while (got < n && (blocks[got] = pm_pool_alloc(pool)) != NULL)
        got++;
    return got;
}

static void give(pm_pool *pool, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        pm_pool_free(pool, blocks[i]);
}

TEST(blocks_are_apart)
{
    static const size_t sizes[] = {1, 16, 40, 100, 4096, 65536};
    for (size_t i = 0; i < 6; i++)
        for (size_t align = 8; align <= 4096; align *= 8)
            for (int m = 0; m < 3; m++) {
                pm_pool_options o = options_of(sizes[i], sharings[m]);
                o.block_align = align;
                pm_pool *pool = create(&o);
                size_t n = take(pool, 300), size = stats_of(pool).block_size;
                assert_int_equal(n, 300);
                assert_true(size >= sizes[i] && size >= 16 && size % align == 0);
                for (size_t b = 0; b < n; b++) {
                    assert_int_equal((uintptr_t)blocks[b] % align, 0);
                    assert_true(pm_pool_owns(pool, blocks[b]) && pm_pool_of((char *)blocks[b] + size - 1) == pool);
                    memset(blocks[b], (int)b, size);
                }
                for (size_t b = 0; b < n; b++)
                    assert_true(*(unsigned char *)blocks[b] == (unsigned char)b && ((unsigned char *)blocks[b])[size - 1] == (unsigned char)b);
                give(pool, 0, n);
                assert_int_equal(stats_of(pool).used, 0);
                pm_pool_destroy(pool);
            }
}

TEST(sizes_are_as_asked_for)
{
    pm_pool_options o = options_of(40, PM_SHARING_NONE);
    pm_pool *pool = create(&o);
    assert_int_equal(stats_of(pool).block_size, 48);
    pm_pool_destroy(pool);
    for (o.block_align = 8; o.block_align > 0; o.block_align /= 2) { /* below 8 it is 8 */
        pool = create(&o);
        assert_int_equal(stats_of(pool).block_size, 40);
        assert_int_equal(stats_of(pool).block_align, 8);
        pm_pool_destroy(pool);
    }
}

TEST(capacity_is_exact)
{
    for (int m = 1; m < 3; m++)
        for (size_t most = 1; most < 5000; most = most * 3 + 1) {
            pm_pool_options o = options_of(64, sharings[m]);
            o.max_blocks = most;
            pm_pool *pool = create(&o);
            for (int round = 0; round < 3; round++) {
                errno = 0;
                assert_int_equal(take(pool, MANY), most);
                assert_int_equal(errno, ENOMEM);
                assert_int_equal(stats_of(pool).used, most);
                assert_int_equal(stats_of(pool).free, 0);
                give(pool, 0, most);
            }
            assert_int_equal(stats_of(pool).failures, 3);
            assert_int_equal(stats_of(pool).high_water, most);
            assert_int_equal(stats_of(pool).capacity, most);
            pm_pool_destroy(pool);
        }
}

TEST(threads_stay_below_the_maximum)
{
    pm_pool_options o = options_of(64, PM_SHARING_THREADS);
    o.max_blocks = 1000;
    pm_pool *pool = create(&o);
    assert_int_equal(take(pool, MANY), 1000); /* no other thread has any at hand */
    give(pool, 0, 1000);
    pm_pool_destroy(pool);
}

TEST(fail_never_grows)
{
    pm_pool_options o = options_of(100, PM_SHARING_LOCKED);
    o.overflow = PM_OVERFLOW_FAIL;
    o.initial_blocks = 77;
    pm_pool *pool = create(&o);
    assert_int_equal(take(pool, MANY), 77);
    pm_pool_destroy(pool);
}

TEST(forward_gives_blocks_of_malloc)
{
    for (int m = 0; m < 3; m++) {
        pm_pool_options o = options_of(128, sharings[m]);
        o.overflow = PM_OVERFLOW_FORWARD;
        o.max_blocks = 10;
        o.block_align = 64;
        pm_pool *pool = create(&o);
        assert_int_equal(take(pool, 30), 30);
        for (int i = 0; i < 30; i++) {
            assert_int_equal((uintptr_t)blocks[i] % 64, 0);
            assert_int_equal(pm_pool_owns(pool, blocks[i]), i < 10);
            memset(blocks[i], i, 128);
        }
        assert_int_equal(stats_of(pool).forwarded, 20);
        assert_int_equal(stats_of(pool).used, 10);
        assert_int_equal(stats_of(pool).failures, 0);
        for (int i = 29; i >= 0; i--)
            pm_pool_free(pool, blocks[i]);
        assert_int_equal(stats_of(pool).used, 0);
        pm_pool_destroy(pool);
    }
}

TEST(bulk_takes_what_there_is)
{
    for (int m = 0; m < 3; m++) {
        pm_pool_options o = options_of(32, sharings[m]);
        o.max_blocks = 5000;
        pm_pool *pool = create(&o);
        assert_int_equal(pm_pool_alloc_bulk(pool, blocks, 3000), 3000);
        assert_int_equal(stats_of(pool).used, 3000);
        errno = 0;
        assert_int_equal(pm_pool_alloc_bulk(pool, blocks + 3000, 3000), 2000);
        assert_int_equal(errno, ENOMEM);
        pm_pool_free_bulk(pool, blocks, 5000);
        assert_int_equal(stats_of(pool).used, 0);
        assert_int_equal(pm_pool_alloc_bulk(pool, blocks, 0), 0);
        pm_pool_destroy(pool);
    }
}

TEST(zalloc_zeroes)
{
    pm_pool_options o = options_of(200, PM_SHARING_THREADS);
    pm_pool *pool = create(&o);
    size_t n = take(pool, 100);
    for (size_t i = 0; i < n; i++)
        memset(blocks[i], 0xff, 200);
    give(pool, 0, n);
    for (int i = 0; i < 200; i++) {
        unsigned char *p = pm_pool_zalloc(pool);
        for (int b = 0; b < 200; b++)
            assert_int_equal(p[b], 0);
    }
    pm_pool_destroy(pool);
}

TEST(reset_frees_all)
{
    for (int m = 0; m < 3; m++) {
        pm_pool_options o = options_of(48, sharings[m]);
        pm_pool *pool = create(&o);
        for (int round = 0; round < 5; round++) {
            assert_int_equal(take(pool, MANY), MANY);
            give(pool, 0, (size_t)round * 100);
            pm_pool_reset(pool);
            assert_int_equal(stats_of(pool).used, 0);
        }
        assert_int_equal(stats_of(pool).high_water >= MANY, 1);
        assert_true(stats_of(pool).capacity < 2 * MANY); /* the same slabs served every round */
        pm_pool_destroy(pool);
    }
}

static size_t visited;
static pm_pool *visited_pool;
static void count_visit(void *p, void *context)
{
    assert_ptr_equal(context, &visited);
    *(unsigned char *)p |= 1;
    visited++;
}
static void free_visit(void *p, void *context)
{
    (void)context;
    visited++;
    pm_pool_free(visited_pool, p);
}

TEST(visit_sees_each_live_block_once)
{
    for (int m = 0; m < 3; m++) {
        pm_pool_options o = options_of(64, sharings[m]);
        pm_pool *pool = visited_pool = create(&o);
        take(pool, MANY);
        for (int i = 0; i < MANY; i++)
            *(unsigned char *)blocks[i] = 0;
        for (int i = 0; i < MANY; i += 3)
            pm_pool_free(pool, blocks[i]);
        visited = 0;
        pm_pool_visit(pool, count_visit, &visited);
        assert_int_equal(visited, MANY - (MANY + 2) / 3);
        for (int i = 0; i < MANY; i++)
            assert_true(i % 3 == 0 || *(unsigned char *)blocks[i] == 1);
        assert_int_equal(stats_of(pool).used, visited);
        visited = 0;
        pm_pool_visit(pool, free_visit, NULL);
        assert_int_equal(visited, MANY - (MANY + 2) / 3);
        assert_int_equal(stats_of(pool).used, 0);
        assert_int_equal(take(pool, 500), 500); /* bins are back in use */
        assert_int_equal(stats_of(pool).used, 500);
        pm_pool_destroy(pool);
    }
}

static size_t calls;
static void on_mark(pm_pool *pool, void *context)
{
    assert_ptr_equal(context, &calls);
    calls++;
    void *p = pm_pool_alloc(pool); /* no lock is held */
    assert_non_null(p);
    pm_pool_free(pool, p);
}

TEST(callback_runs_once_a_crossing)
{
    for (int m = 1; m < 3; m++) {
        pm_pool_options o = options_of(64, sharings[m]);
        o.high_water = 700;
        o.on_high_water = on_mark;
        o.context = &calls;
        pm_pool *pool = create(&o);
        calls = 0;
        take(pool, 699);
        assert_int_equal(calls, 0);
        blocks[699] = pm_pool_alloc(pool);
        assert_int_equal(calls, 1);
        blocks[700] = pm_pool_alloc(pool);
        assert_int_equal(calls, 1);
        give(pool, 600, 701);
        for (int i = 600; i < 800; i++)
            blocks[i] = pm_pool_alloc(pool);
        assert_int_equal(calls, 2);
        give(pool, 0, 800);
        assert_int_equal(pm_pool_alloc_bulk(pool, blocks, 900), 900);
        assert_int_equal(calls, 3);
        pm_pool_destroy(pool);
    }
    pm_pool_options o = options_of(64, PM_SHARING_THREADS);
    o.high_water = 700;
    o.on_high_water = on_mark;
    o.context = &calls;
    pm_pool *pool = create(&o);
    calls = 0;
    take(pool, 600);
    assert_int_equal(calls, 0);
    take(pool, 200);
    assert_int_equal(calls, 1);
    pm_pool_destroy(pool);
}

TEST(the_mark_is_the_most_in_use)
{
    for (int m = 1; m < 3; m++) {
        pm_pool_options o = options_of(64, sharings[m]);
        pm_pool *pool = create(&o);
        size_t used = 0, most = 0, from = 0;
        unsigned random = 7;
        for (int i = 0; i < 100000; i++) {
            random = random * 1103515245 + 12345;
            if ((random >> 16) % 100 < 52 && used < MANY - 1) {
                blocks[(from + used++) % MANY] = pm_pool_alloc(pool);
            } else if (used) {
                pm_pool_free(pool, blocks[from]);
                from = (from + 1) % MANY;
                used--;
            }
            most = used > most ? used : most;
            if (i % 1000 == 0)
                assert_int_equal(stats_of(pool).high_water, most);
        }
        pm_pool_high_water_reset(pool);
        assert_int_equal(stats_of(pool).high_water, used);
        pm_pool_destroy(pool);
    }
}

TEST(trim_gives_empty_slabs_back)
{
    for (int m = 0; m < 3; m++) {
        pm_pool_options o = options_of(1024, sharings[m]);
        o.initial_blocks = 200;
        pm_pool *pool = create(&o);
        take(pool, 2000);
        give(pool, 0, 2000);
        size_t before = stats_of(pool).capacity;
        size_t bytes = pm_pool_trim(pool);
        assert_int_equal(stats_of(pool).capacity, before - bytes / 1024);
        assert_int_equal(stats_of(pool).capacity, 256);
        pm_pool_destroy(pool);
        pools_check();
    }
}

TEST(a_reset_keeps_the_mark)
{
    for (int m = 1; m < 3; m++) {
        pm_pool_options o = options_of(64, sharings[m]);
        pm_pool *pool = create(&o);
        take(pool, 1);
        pm_pool_reset(pool);
        assert_int_equal(stats_of(pool).high_water, 1);
        pm_pool_destroy(pool);
    }
}

static void swap_visit(void *p, void *context)
{
    (void)context;
    if (visited++ % 2 == 0) {
        pm_pool_free(visited_pool, p);
        assert_non_null(pm_pool_alloc(visited_pool));
    }
}

/* A visitor that frees and takes finds the room that it makes, though full slabs stand before it. */
TEST(visitors_may_take)
{
    for (int m = 0; m < 3; m++) {
        pm_pool_options o = options_of(1024, sharings[m]);
        pm_pool *pool = visited_pool = create(&o);
        take(pool, 128 * 8);
        size_t capacity = stats_of(pool).capacity;
        visited = 0;
        pm_pool_visit(pool, swap_visit, NULL);
        assert_int_equal(stats_of(pool).used, 128 * 8);
        assert_int_equal(stats_of(pool).capacity, capacity);
        pm_pool_destroy(pool);
    }
}

/* Callbacks that never come back to the visit: by longjmp, from each block in turn, after having freed and taken. */
static jmp_buf left;
static void leave_visit(void *p, void *context)
{
    size_t *rest = context;
    if ((*rest)-- > 0)
        return;
    pm_pool_free(visited_pool, p);
    blocks[MANY - 1] = pm_pool_alloc(visited_pool);
    longjmp(left, 1);
}

TEST(visits_may_be_left)
{
    for (int m = 0; m < 3; m++) {
        pm_pool_options o = options_of(64, sharings[m]);
        pm_pool *pool = visited_pool = create(&o);
        take(pool, 5000);
        for (volatile size_t after = 0; after < 5000; after += 613) {
            size_t rest = after;
            if (setjmp(left) == 0) {
                pm_pool_visit(pool, leave_visit, &rest);
                fail();
            }
            assert_int_equal(stats_of(pool).used, 5000);
            assert_true(m == 0 || pool->own.limit > 0); /* bins are as they were */
        }
        visited = 0;
        pm_pool_visit(pool, count_visit, &visited);
        assert_int_equal(visited, 5000);
        pm_pool_destroy(pool);
    }
}

/* ---- a caller's memory ---- */

static _Alignas(4096) char memory[1 << 20];

TEST(pools_over_a_buffer)
{
    for (size_t size = 16; size <= 65536; size = size * 3 + 8)
        for (int m = 0; m < 3; m++)
            for (size_t align = 8; align <= 4096; align *= 16) {
                pm_pool_options o = options_of(size, sharings[m]);
                o.block_align = align;
                o.buffer = memory + 3;
                o.buffer_bytes = 300000;
                pm_pool *pool = create(&o);
                size_t capacity = stats_of(pool).capacity, bytes = stats_of(pool).block_size;
                assert_true(capacity * bytes <= 300000 && (capacity + 2) * bytes + capacity / 8 + 4096 + 60 > 300000);
                for (int round = 0; round < 3; round++) {
                    assert_int_equal(take(pool, MANY), size_of_least(capacity, MANY));
                    size_t n = size_of_least(capacity, MANY);
                    for (size_t i = 0; i < n; i++) {
                        assert_true((char *)blocks[i] > memory && (char *)blocks[i] + bytes <= memory + 300003);
                        assert_int_equal((uintptr_t)blocks[i] % align, 0);
                        assert_true(pm_pool_owns(pool, blocks[i]) && !pm_pool_of(blocks[i]));
                        *(size_t *)blocks[i] = i;
                    }
                    for (size_t i = 0; i < n; i++)
                        assert_int_equal(*(size_t *)blocks[i], i);
                    visited_pool = pool;
                    visited = 0;
                    if (round == 0)
                        give(pool, 0, n);
                    else if (round == 1)
                        pm_pool_visit(pool, free_visit, NULL);
                    else
                        pm_pool_reset(pool);
                    assert_true(round != 1 || visited == n);
                    assert_int_equal(stats_of(pool).used, 0);
                }
                assert_int_equal(pool->slabs.count, 0);
                assert_false(pm_pool_owns(pool, blocks));
                pm_pool_destroy(pool);
            }
}

TEST(buffers_are_extended)
{
    pm_pool_options o = options_of(100, PM_SHARING_NONE);
    o.buffer = memory;
    o.buffer_bytes = 2000;
    o.overflow = PM_OVERFLOW_FORWARD;
    pm_pool *pool = create(&o);
    size_t first = stats_of(pool).capacity;
    assert_int_equal(pm_pool_extend(pool, memory + 5000, 5000), 0);
    assert_true(stats_of(pool).capacity > 3 * first);
    errno = 0;
    assert_int_equal(pm_pool_extend(pool, memory + 20000, 100), -1);
    assert_int_equal(errno, EINVAL);
    size_t all = stats_of(pool).capacity;
    assert_int_equal(take(pool, all + 10), all + 10);
    assert_int_equal(stats_of(pool).forwarded, 10);
    give(pool, 0, all + 10);
    assert_int_equal(stats_of(pool).used, 0);
    assert_int_equal(pm_pool_trim(pool), 0);
    pm_pool_destroy(pool);
    o.buffer = NULL;
    pool = create(&o);
    assert_non_null(pm_pool_alloc(pool));
    assert_int_equal(pm_pool_extend(pool, memory, 5000), -1); /* one that has slabs */
    pm_pool_destroy(pool);
}

TEST(pools_grow_as_told)
{
    for (int m = 0; m < 3; m++) {
        pm_pool_options o = options_of(4096, sharings[m]);
        o.grow_blocks = 100; /* 31 a slab */
        pm_pool *pool = create(&o);
        pm_pool_free(pool, pm_pool_alloc(pool));
        assert_int_equal(pool->slabs.count, 4);
        take(pool, 200);
        assert_int_equal(pool->slabs.count, 8);
        give(pool, 0, 200);
        assert_true(pool->slabs.count >= 4);
        pm_pool_trim(pool);
        assert_int_equal(pool->slabs.count, 0);
        pm_pool_destroy(pool);
    }
}

/* What is said on stderr at a pool's end. */
TEST(leaks_are_reported_where_asked)
{
    for (int told = 0; told < 2; told++)
        for (size_t used = 0; used < 2; used++) {
            char said[200] = "";
            int ends[2], saved = dup(2);
            assert_int_equal(pipe(ends), 0);
            dup2(ends[1], 2);
            close(ends[1]);
            pm_pool_options o = options_of(64, PM_SHARING_NONE);
            o.name = "leaky";
            o.report_leaks = told;
            pm_pool *pool = create(&o);
            take(pool, used);
            pm_pool_destroy(pool);
            dup2(saved, 2);
            close(saved);
            assert_true(read(ends[0], said, sizeof said - 1) >= 0);
            close(ends[0]);
            assert_int_equal(strstr(said, "leaky ends with 1 blocks of 64 bytes") != NULL, told && used);
        }
}

/* ---- bad input ---- */

static void refuse(pm_pool_options o)
{
    errno = 0;
    assert_null(pm_pool_create(&o));
    assert_int_equal(errno, EINVAL);
}

TEST(bad_options_are_refused)
{
    pm_pool_options good = options_of(64, PM_SHARING_THREADS), o;
    errno = 0;
    assert_null(pm_pool_create(NULL));
    assert_int_equal(errno, EINVAL);
#define BAD(change)                                                                                                    \
    o = good;                                                                                                          \
    change;                                                                                                            \
    refuse(o)
    BAD(o.block_size = 0);
    BAD(o.block_size = 65537);
    BAD(o.block_size = SIZE_MAX);
    BAD(o.block_align = 24);
    BAD(o.block_align = 3);
    BAD(o.block_align = 8192);
    BAD(o.sharing = (pm_sharing)3);
    BAD(o.overflow = (pm_overflow)3);
    BAD(o.max_blocks = 5; o.initial_blocks = 6);
    BAD(o.initial_blocks = SIZE_MAX);
    BAD(o.max_blocks = 10; o.high_water = 11);
    BAD(o.overflow = PM_OVERFLOW_FAIL; o.initial_blocks = 10; o.high_water = 11);
    BAD(o.grow_blocks = SIZE_MAX);
    BAD(o.overflow = PM_OVERFLOW_FAIL);
    BAD(o.buffer = blocks);
    BAD(o.buffer = blocks; o.buffer_bytes = 100);
    BAD(o.buffer = blocks; o.buffer_bytes = SIZE_MAX);
    BAD(o.buffer = blocks; o.buffer_bytes = sizeof blocks; o.initial_blocks = 1);
    BAD(o.struct_size = 0);
    BAD(o.struct_size = 16);
}

TEST(more_than_the_machine_has_is_refused)
{
    pm_pool_options o = options_of(65536, PM_SHARING_THREADS);
    for (o.initial_blocks = (size_t)1 << 26; o.initial_blocks <= (size_t)1 << 33; o.initial_blocks *= 2) {
        errno = 0;
        assert_null(pm_pool_create(&o));
        assert_int_equal(errno, ENOMEM);
    }
}

TEST(an_older_struct_is_taken)
{
    struct {
        size_t struct_size;
        const char *name;
        size_t block_size;
        unsigned char beyond[100];
    } old = {24, "old", 64, {0}};
    memset(old.beyond, 0xff, sizeof old.beyond);
    pm_pool *pool = pm_pool_create((const pm_pool_options *)(const void *)&old);
    assert_non_null(pool);
    assert_non_null(pm_pool_alloc(pool));
    struct {
        size_t struct_size, block_size;
        size_t beyond;
    } s = {16, 0, 77};
    pm_pool_stats_get(pool, (pm_pool_stats *)(void *)&s);
    assert_int_equal(s.block_size, 64);
    assert_int_equal(s.beyond, 77);
    pm_pool_destroy(pool);
}

TEST(null_does_no_harm)
{
    errno = 0;
    assert_null(pm_pool_alloc(NULL));
    assert_int_equal(errno, EINVAL);
    assert_null(pm_pool_zalloc(NULL));
    assert_int_equal(pm_pool_alloc_bulk(NULL, blocks, 1), 0);
    pm_pool_free(NULL, NULL);
    pm_pool_free(NULL, blocks);
    pm_pool_free_bulk(NULL, blocks, 1);
    pm_pool_reset(NULL);
    pm_pool_destroy(NULL);
    pm_pool_visit(NULL, count_visit, NULL);
    pm_pool_stats_get(NULL, NULL);
    pm_pool_high_water_reset(NULL);
    assert_int_equal(pm_pool_trim(NULL), 0);
    assert_false(pm_pool_owns(NULL, blocks));
    assert_null(pm_pool_of(blocks));
    assert_null(pm_pool_of(NULL));
    assert_null(pm_arena_alloc(NULL, 1, 1));
    pm_arena_rewind(NULL, pm_arena_save(NULL));
    pm_arena_reset(NULL);
    pm_arena_destroy(NULL);
    pm_pool_options o = options_of(64, PM_SHARING_THREADS);
    pm_pool *pool = create(&o);
    pm_pool_free(pool, NULL);
    pm_pool_stats_get(pool, NULL);
    pm_pool_visit(pool, NULL, NULL);
    assert_int_equal(pm_pool_alloc_bulk(pool, NULL, 1), 0);
    pm_pool_free_bulk(pool, NULL, 1);
    pm_pool_destroy(pool);
}

/* ---- threads ---- */

static pm_pool *shared_pool;

static void *free_half(void *part)
{
    for (size_t i = (size_t)part; i < MANY; i += 2)
        pm_pool_free(shared_pool, blocks[i]);
    return NULL;
}

static void *fill_and_end(void *unused)
{
    (void)unused;
    for (int i = 0; i < 50; i++)
        pm_pool_free(shared_pool, pm_pool_alloc(shared_pool));
    return NULL;
}

static void on_thread(void *(*f)(void *), void *context)
{
    pthread_t t;
    pthread_create(&t, NULL, f, context);
    pthread_join(t, NULL);
}

TEST(other_threads_free)
{
    for (int m = 0; m < 3; m++) {
        pm_pool_options o = options_of(80, sharings[m]);
        shared_pool = create(&o);
        assert_int_equal(take(shared_pool, MANY), MANY);
        on_thread(free_half, (void *)0);
        assert_int_equal(stats_of(shared_pool).used, MANY / 2);
        on_thread(free_half, (void *)1);
        on_thread(fill_and_end, NULL); /* what a thread has at hand goes back when it ends */
        assert_int_equal(stats_of(shared_pool).used, 0);
        assert_true(m > 0 || shared_pool->out == bin_holds(pool_bin(shared_pool, my_heap)));
        pm_pool_destroy(shared_pool);
    }
}

static int turn;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void turn_await(int wanted)
{
    pthread_mutex_lock(&mutex);
    while (turn != wanted)
        pthread_cond_wait(&changed, &mutex);
    pthread_mutex_unlock(&mutex);
}

static void turn_set(int to)
{
    pthread_mutex_lock(&mutex);
    turn = to;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&mutex);
}

/* Holds blocks of the pool in its bin, and others' blocks in its outboxes, while the pool ends. */
static void *hold_while_destroyed(void *theirs)
{
    fill_and_end(NULL);
    for (int i = 0; i < 20; i++)
        free_block(((void **)theirs)[i]);
    turn_set(1);
    turn_await(2);
    fill_and_end(NULL); /* of the new pool, which has the old one's number */
    return NULL;
}

TEST(destroyed_while_others_hold_blocks)
{
    void *mine[20];
    for (int i = 0; i < 20; i++)
        mine[i] = take_class(class_of(80));
    pm_pool_options o = options_of(80, PM_SHARING_THREADS);
    shared_pool = create(&o);
    take(shared_pool, 3000);
    turn = 0;
    pthread_t t;
    pthread_create(&t, NULL, hold_while_destroyed, mine);
    turn_await(1);
    uint32_t offset = shared_pool->bin_offset;
    pm_pool_destroy(shared_pool);
    pools_check();
    o.block_size = 3000;
    shared_pool = create(&o);
    assert_int_equal(shared_pool->bin_offset, offset);
    turn_set(2);
    pthread_join(t, NULL);
    assert_int_equal(stats_of(shared_pool).used, 0);
    pm_pool_destroy(shared_pool);
    pools_check();
}

TEST(pools_beyond_the_bins_are_locked)
{
    static pm_pool *pools[POOL_BINS + 2];
    pm_pool_options o = options_of(64, PM_SHARING_THREADS);
    for (int i = 0; i < POOL_BINS + 2; i++) {
        pools[i] = pm_pool_create(&o);
        assert_non_null(pools[i]);
        void *p = pm_pool_alloc(pools[i]);
        assert_ptr_equal(pm_pool_of(p), pools[i]);
        pm_pool_free(pools[i], p);
    }
    assert_int_equal(pools[POOL_BINS + 1]->sharing, PM_SHARING_LOCKED);
    for (int i = 0; i < POOL_BINS + 2; i++)
        pm_pool_destroy(pools[i]);
    assert_int_equal(pm_pools.count, 0);
}

/* Threads that each keep one block of a pool, and rest. */
enum { RESTING = 300 };
static pthread_barrier_t all_have, all_may_go;
static void *keep_one(void *unused)
{
    (void)unused;
    void *p = pm_pool_alloc(shared_pool);
    pm_pool_free(shared_pool, pm_pool_alloc(shared_pool));
    pthread_barrier_wait(&all_have);
    pthread_barrier_wait(&all_may_go);
    pm_pool_free(shared_pool, p);
    return NULL;
}

TEST(many_threads_have_few_at_hand)
{
    for (size_t most = 0; most <= 4 * RESTING; most += 4 * RESTING) {
        pm_pool_options o = options_of(64, PM_SHARING_THREADS);
        o.max_blocks = most;
        shared_pool = create(&o);
        void *first = pm_pool_alloc(shared_pool); /* two that find no slab at once would take one each */
        pthread_t threads[RESTING];
        pthread_barrier_init(&all_have, NULL, RESTING + 1);
        pthread_barrier_init(&all_may_go, NULL, RESTING + 1);
        for (int i = 0; i < RESTING; i++)
            pthread_create(&threads[i], NULL, keep_one, NULL);
        pthread_barrier_wait(&all_have);
        assert_int_equal(stats_of(shared_pool).used, RESTING + 1);
        assert_int_equal(shared_pool->slabs.count, 1); /* of 2,048 blocks */
        assert_true(most == 0 || take(shared_pool, MANY) >= most / 8); /* the others have not got all the rest */
        pthread_barrier_wait(&all_may_go);
        for (int i = 0; i < RESTING; i++)
            pthread_join(threads[i], NULL);
        pm_pool_free(shared_pool, first);
        assert_int_equal(shared_pool->bins_begun, 1); /* who has ended counts no longer */
        pm_pool_destroy(shared_pool);
    }
}

TEST(free_takes_pool_blocks)
{
    for (int m = 0; m < 3; m++) {
        pm_pool_options o = options_of(96, sharings[m]);
        pm_pool *pool = create(&o);
        take(pool, 1000);
        for (int i = 0; i < 1000; i++)
            free_block(blocks[i]); /* what the interposer's free() does */
        assert_int_equal(stats_of(pool).used, 0);
        pm_pool_destroy(pool);
    }
}

TEST(children_go_on)
{
    for (int m = 0; m < 3; m++) {
        pm_pool_options o = options_of(96, sharings[m]);
        pm_pool *pool = create(&o);
        take(pool, 500);
        pid_t child = fork();
        if (child == 0) {
            give(pool, 0, 500);
            _exit(take(pool, 2000) == 2000 && pm_pool_owns(pool, blocks[1999]) ? 0 : 1);
        }
        int status;
        waitpid(child, &status, 0);
        assert_int_equal(status, 0);
        give(pool, 0, 500);
        assert_int_equal(stats_of(pool).used, 0);
        pm_pool_destroy(pool);
    }
}

static void *hold_until_told(void *unused)
{
    (void)unused;
    for (int i = 0; i < 150; i++)
        blocks[1000 + i] = pm_pool_alloc(shared_pool);
    for (int i = 0; i < 150; i++)
        pm_pool_free(shared_pool, blocks[1000 + i]);
    turn_set(1);
    turn_await(2);
    return NULL;
}

/* A child has the blocks of threads that it does not have. */
TEST(children_get_what_threads_had)
{
    pm_pool_options o = options_of(64, PM_SHARING_THREADS);
    o.max_blocks = 400;
    shared_pool = create(&o);
    turn = 0;
    pthread_t t;
    pthread_create(&t, NULL, hold_until_told, NULL);
    turn_await(1);
    pid_t child = fork();
    if (child == 0)
        _exit(take(shared_pool, 1000) == 400 ? 0 : 1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    turn_set(2);
    pthread_join(t, NULL);
    pm_pool_destroy(shared_pool);
}

/* ---- arenas ---- */

static pm_arena_stats arena_stats_of(const pm_arena *a)
{
    pm_arena_stats s = {.struct_size = sizeof s};
    pm_arena_stats_get(a, &s);
    assert_true(s.used <= s.held);
    return s;
}

static void arena_fills(pm_arena *a, size_t total)
{
    unsigned random = 3;
    for (size_t sum = 0; sum < total;) {
        random = random * 1103515245 + 12345;
        size_t size = (random >> 16) % 3000 + 1, align = (size_t)1 << (random >> 8) % 8;
        unsigned char *p = pm_arena_alloc(a, size, align);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % align, 0);
        memset(p, 0x5a, size);
        sum += size;
    }
}

TEST(arenas_grow)
{
    pm_arena *a = pm_arena_create(NULL, 0);
    assert_non_null(a);
    arena_fills(a, 3 << 20);
    size_t slabs = arena_slabs();
    pm_arena_reset(a);
    arena_fills(a, 3 << 20);
    assert_int_equal(arena_slabs(), slabs); /* the memory stayed */
    void *large = pm_arena_alloc(a, 1 << 20, 1 << 21);
    assert_non_null(large);
    assert_int_equal((uintptr_t)large % (1 << 21), 0);
    memset(large, 1, 1 << 20);
    assert_non_null(pm_arena_alloc(a, 0, 0));
    pm_arena_destroy(a);
    assert_int_equal(arena_slabs(), 1);
    pools_check();
}

TEST(arenas_begin_with_room)
{
    pm_arena *a = pm_arena_create(NULL, 1 << 20);
    assert_non_null(a);
    size_t slabs = arena_slabs();
    char *all = pm_arena_alloc(a, 1 << 20, 16);
    assert_non_null(all);
    memset(all, 1, 1 << 20);
    assert_int_equal(arena_slabs(), slabs);
    pm_arena_reset(a);
    for (int i = 0; i < 1 << 20; i += 64)
        assert_non_null(pm_arena_alloc(a, 64, 16));
    assert_int_equal(arena_slabs(), slabs);
    pm_arena_destroy(a);
    errno = 0;
    if (!PM_SANITIZED) { /* whose malloc aborts on such sizes */
        assert_null(pm_arena_create(NULL, (size_t)1 << 46));
        assert_int_equal(errno, ENOMEM);
    }
}

TEST(arenas_rewind)
{
    pm_arena *a = pm_arena_create(NULL, 0);
    char *kept = pm_arena_alloc(a, 100, 16);
    memset(kept, 'k', 100);
    for (int round = 0; round < 20; round++) {
        pm_arena_mark mark = pm_arena_save(a);
        char *first = pm_arena_alloc(a, 10, 16);
        arena_fills(a, (size_t)round << 16);
        pm_arena_rewind(a, mark);
        assert_ptr_equal(pm_arena_alloc(a, 10, 16), first);
        pm_arena_rewind(a, mark);
    }
    for (int i = 0; i < 100; i++)
        assert_int_equal(kept[i], 'k');
    pm_arena_destroy(a);
}

TEST(arenas_stay_in_their_buffer)
{
    static char buffer[4096 + 1];
    for (size_t bytes = 1; bytes <= 4096; bytes = bytes * 2 + 3)
        for (int off = 0; off < 2; off++) {
            pm_arena *a = pm_arena_create(buffer + off, bytes - (bytes > 4095));
            size_t n = 0;
            assert_non_null(a);
            for (char *p; (p = pm_arena_alloc(a, 8, 8)) != NULL; n += 8)
                assert_true(p >= buffer + off && p + 8 <= buffer + off + bytes);
            assert_int_equal(errno, ENOMEM);
            assert_true(n + 64 + 16 + 8 >= bytes && n <= bytes);
            pm_arena_reset(a);
            size_t again = 0;
            while (pm_arena_alloc(a, 8, 8))
                again += 8;
            assert_int_equal(n, again);
            pm_arena_destroy(a);
        }
}

TEST(bad_arenas_are_refused)
{
    char buffer[200];
    errno = 0;
    assert_null(pm_arena_create(buffer, 0));
    assert_int_equal(errno, EINVAL);
    assert_null(pm_arena_create(NULL, SIZE_MAX));
    pm_arena *a = pm_arena_create(buffer, sizeof buffer), *g = pm_arena_create(NULL, 0);
    for (int i = 0; i < 2; i++) {
        pm_arena *each = i ? g : a;
        errno = 0;
        assert_null(pm_arena_alloc(each, 1, 3));
        assert_int_equal(errno, EINVAL);
        assert_null(pm_arena_alloc(each, 1, (size_t)1 << 22));
        errno = 0;
        assert_null(pm_arena_alloc(each, SIZE_MAX, 1));
        assert_int_equal(errno, ENOMEM);
        assert_null(pm_arena_alloc(each, SIZE_MAX - 100, (size_t)1 << 21));
        assert_null(pm_arena_alloc(each, PTRDIFF_MAX, 1));
    }
    pm_arena_destroy(a);
    pm_arena_destroy(g);
}

/* What each of many requests of its own size needs: its chunk, and no other request's. */
TEST(arenas_end_chunks_that_are_too_small)
{
    pm_arena *a = pm_arena_create(NULL, 0);
    size_t largest = 200000;
    for (int i = 0; i < 4000; i++, largest += 64) {
        char *p = pm_arena_alloc(a, largest, 16);
        assert_non_null(p);
        p[0] = p[largest - 1] = 1;
        pm_arena_reset(a);
        assert_true(arena_stats_of(a).held < 2 * largest);
    }
    arena_fills(a, 20 << 20); /* small ones, which the large chunk and then slabs serve */
    size_t held = arena_stats_of(a).held;
    pm_arena_reset(a);
    assert_non_null(pm_arena_alloc(a, 3 << 20, 16)); /* as many slabs as that takes give way */
    assert_true(arena_stats_of(a).held < held + (2 << 20) && arena_stats_of(a).held > held - (2 << 20));
    pm_arena_destroy(a);
    assert_int_equal(arena_slabs(), 1);
}

TEST(arenas_keep_their_limit)
{
    pm_arena *a = pm_arena_create_with(&(pm_arena_options){.struct_size = sizeof(pm_arena_options), .limit = 1 << 20});
    for (int round = 0; round < 3; round++) {
        size_t got = 0;
        errno = 0;
        while (pm_arena_alloc(a, 1000, 8))
            got += 1000;
        assert_int_equal(errno, ENOMEM);
        assert_true(got > 1000000 && got <= 1 << 20);
        assert_true(arena_stats_of(a).used >= got && arena_stats_of(a).held <= 1 << 20);
        pm_arena_reset(a);
        assert_int_equal(arena_stats_of(a).used, 0);
        assert_non_null(pm_arena_alloc(a, 700000, 8)); /* slabs give way */
        assert_null(pm_arena_alloc(a, 700000, 8));
        pm_arena_reset(a);
    }
    pm_arena_destroy(a);
    a = pm_arena_create_with(&(pm_arena_options){.struct_size = sizeof(pm_arena_options), .limit = 1000});
    assert_non_null(pm_arena_alloc(a, 900, 8));
    assert_null(pm_arena_alloc(a, 900, 8));
    pm_arena_destroy(a);
}

static size_t taken, given;
static void *source_take(size_t bytes, void *context)
{
    assert_ptr_equal(context, &taken);
    taken += bytes;
    return taken > 1 << 20 ? NULL : malloc(bytes);
}
static void source_give(void *p, size_t bytes, void *context)
{
    assert_ptr_equal(context, &taken);
    given += bytes;
    free(p);
}

TEST(arenas_over_a_source)
{
    taken = given = 0;
    pm_arena_options o = {.struct_size = sizeof o, .chunk_bytes = 5000, .take = source_take, .give = source_give, .context = &taken};
    pm_arena *a = pm_arena_create_with(&o);
    arena_fills(a, 500000);
    assert_int_equal(taken - given, arena_stats_of(a).held);
    pm_arena_reset(a);
    assert_non_null(pm_arena_alloc(a, 100000, 16));
    assert_int_equal(taken - given, arena_stats_of(a).held);
    assert_null(pm_arena_alloc(a, 1 << 20, 16));
    size_t refused = (1 << 20) + sizeof(void *) * 4;
    assert_true(taken > refused);
    pm_arena_destroy(a);
    assert_true(taken - given >= refused && taken - given < 2 * refused); /* the one that was refused */
}

static void note(void *context)
{
    static char *end;
    char *log = context;
    end = log[0] ? end : log;
    *end++ = log[99]++;
    *end = 0;
}

/* Each arena with deferred calls, and what each way of giving back runs. */
TEST(deferred_calls_run_once)
{
    static char buffer[4096];
    for (int over_buffer = 0; over_buffer < 2; over_buffer++) {
        char log[100] = {[99] = 'a'};
        pm_arena *a = pm_arena_create(over_buffer ? buffer : NULL, over_buffer ? sizeof buffer : 0);
        assert_int_equal(pm_arena_defer(a, note, log), 0);
        pm_arena_mark mark = pm_arena_save(a);
        for (int i = 0; i < 20; i++) { /* over several chunks */
            assert_true(over_buffer || pm_arena_alloc(a, 50000, 16));
            assert_int_equal(pm_arena_defer(a, note, log), 0);
        }
        pm_arena_mark late = pm_arena_save(a);
        assert_int_equal(pm_arena_defer(a, note, log), 0);
        pm_arena_rewind(a, late);
        assert_string_equal(log, "a");
        pm_arena_rewind(a, mark);
        assert_string_equal(log, "abcdefghijklmnopqrstu");
        pm_arena_rewind(a, mark);
        assert_int_equal(strlen(log), 21);
        pm_arena_reset(a);
        assert_int_equal(strlen(log), 22);
        assert_int_equal(pm_arena_defer(a, note, log), 0);
        pm_arena_destroy(a);
        assert_int_equal(strlen(log), 23);
    }
    errno = 0;
    assert_int_equal(pm_arena_defer(NULL, note, NULL), -1);
    assert_int_equal(errno, EINVAL);
}

static pm_arena *sub_arena(pm_arena *parent)
{
    pm_arena *sub = pm_arena_create_with(
        &(pm_arena_options){.struct_size = sizeof(pm_arena_options), .parent = parent, .chunk_bytes = 1000});
    assert_non_null(sub);
    return sub;
}

TEST(sub_arenas_end_with_their_parent)
{
    char log[100] = {[99] = 'a'};
    pm_arena *a = pm_arena_create(NULL, 0);
    pm_arena_mark mark = pm_arena_save(a);
    for (int round = 0; round < 3; round++) {
        pm_arena *sub = sub_arena(a), *below = sub_arena(sub);
        arena_fills(sub, 100000);
        arena_fills(below, 100000);
        assert_true(arena_stats_of(a).used >= 200000);
        pm_arena_defer(below, note, log);
        if (round == 0)
            pm_arena_reset(a);
        else if (round == 1)
            pm_arena_rewind(a, mark);
        else
            pm_arena_destroy(below);
        assert_int_equal(strlen(log), round + 1);
    }
    pm_arena_destroy(a);
    assert_int_equal(strlen(log), 3); /* what was destroyed before is not ended again */
    assert_int_equal(arena_slabs(), 1);
}

TEST(scopes_rewind)
{
    pm_arena *a = pm_arena_create(NULL, 0);
    void *first = pm_arena_alloc(a, 10, 16);
    for (int i = 0; i < 5; i++) {
        PM_ARENA_SCOPE(a);
        arena_fills(a, 300000);
        PM_ARENA_SCOPE(a);
        assert_non_null(first);
    }
    assert_ptr_equal(pm_arena_alloc(a, 1, 1), (char *)first + 10);
    pm_arena_destroy(a);
}

TEST(arenas_print)
{
    pm_arena *a = pm_arena_create(NULL, 0);
    static char letters[300000];
    memset(letters, 'x', sizeof letters - 1);
    char *copy = pm_arena_strdup(a, letters), *printed = pm_arena_printf(a, "%s-%d", "no", 7);
    assert_string_equal(copy, letters);
    for (size_t length = 0; length < sizeof letters; length = length * 2 + 17) { /* into what is left of a chunk, and beyond */
        char *more = pm_arena_printf(a, "%.*s.", (int)length, letters);
        assert_int_equal(strlen(more), length + 1);
        assert_int_equal(more[length], '.');
    }
    assert_string_equal(printed, "no-7");
    char *empty = pm_arena_strdup(a, "");
    assert_ptr_equal(empty, (char *)pm_arena_save(a).at - 1);
    errno = 0;
    assert_null(pm_arena_strdup(a, NULL));
    assert_int_equal(errno, EINVAL);
    pm_arena_destroy(a);
    a = pm_arena_create(letters, 100);
    assert_null(pm_arena_printf(a, "%200d", 1));
    assert_non_null(pm_arena_printf(a, "%20d", 1));
    pm_arena_destroy(a);
}

TEST(bad_arena_options_are_refused)
{
    char buffer[300];
    pm_arena *a = pm_arena_create(NULL, 0);
    pm_arena_options good = {.struct_size = sizeof good}, bad[6] = {good, good, good, good, good, good};
    bad[0].struct_size = 4;
    bad[1].bytes = SIZE_MAX;
    bad[2].parent = a;
    bad[2].take = source_take;
    bad[3].buffer = bad[4].buffer = bad[5].buffer = buffer;
    bad[4].bytes = bad[5].bytes = sizeof buffer;
    bad[4].limit = 100;
    bad[5].parent = a;
    for (int i = 0; i < 6; i++) {
        errno = 0;
        assert_null(pm_arena_create_with(&bad[i]));
        assert_int_equal(errno, EINVAL);
    }
    assert_null(pm_arena_create_with(NULL));
    pm_arena_stats s = {.struct_size = 16, .held = 77}; /* an older caller's */
    pm_arena_alloc(a, 100, 1);
    pm_arena_stats_get(a, &s);
    assert_true(s.used == 100 && s.held == 77);
    pm_arena_destroy(a);
}

TEST(scopes_end_them)
{
    {
        pm_pool_options o = options_of(64, PM_SHARING_NONE);
        PM_POOL_AUTO pm_pool *pool = pm_pool_create(&o);
        PM_ARENA_AUTO pm_arena *arena = pm_arena_create(NULL, 0);
        assert_non_null(pm_pool_alloc(pool));
        assert_non_null(pm_arena_alloc(arena, 1, 1));
        assert_int_equal(pm_pools.count, 1);
    }
    assert_int_equal(pm_pools.count, 0);
    assert_int_equal(arena_slabs(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_apart),
        cmocka_unit_test(sizes_are_as_asked_for),
        cmocka_unit_test(capacity_is_exact),
        cmocka_unit_test(threads_stay_below_the_maximum),
        cmocka_unit_test(fail_never_grows),
        cmocka_unit_test(forward_gives_blocks_of_malloc),
        cmocka_unit_test(bulk_takes_what_there_is),
        cmocka_unit_test(zalloc_zeroes),
        cmocka_unit_test(reset_frees_all),
        cmocka_unit_test(visit_sees_each_live_block_once),
        cmocka_unit_test(callback_runs_once_a_crossing),
        cmocka_unit_test(the_mark_is_the_most_in_use),
        cmocka_unit_test(trim_gives_empty_slabs_back),
        cmocka_unit_test(a_reset_keeps_the_mark),
        cmocka_unit_test(visitors_may_take),
        cmocka_unit_test(visits_may_be_left),
        cmocka_unit_test(pools_over_a_buffer),
        cmocka_unit_test(buffers_are_extended),
        cmocka_unit_test(pools_grow_as_told),
        cmocka_unit_test(leaks_are_reported_where_asked),
        cmocka_unit_test(many_threads_have_few_at_hand),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(more_than_the_machine_has_is_refused),
        cmocka_unit_test(an_older_struct_is_taken),
        cmocka_unit_test(null_does_no_harm),
        cmocka_unit_test(other_threads_free),
        cmocka_unit_test(destroyed_while_others_hold_blocks),
        cmocka_unit_test(pools_beyond_the_bins_are_locked),
        cmocka_unit_test(free_takes_pool_blocks),
        cmocka_unit_test(children_go_on),
        cmocka_unit_test(children_get_what_threads_had),
        cmocka_unit_test(arenas_grow),
        cmocka_unit_test(arenas_begin_with_room),
        cmocka_unit_test(arenas_rewind),
        cmocka_unit_test(arenas_stay_in_their_buffer),
        cmocka_unit_test(bad_arenas_are_refused),
        cmocka_unit_test(arenas_end_chunks_that_are_too_small),
        cmocka_unit_test(arenas_keep_their_limit),
        cmocka_unit_test(arenas_over_a_source),
        cmocka_unit_test(deferred_calls_run_once),
        cmocka_unit_test(sub_arenas_end_with_their_parent),
        cmocka_unit_test(scopes_rewind),
        cmocka_unit_test(arenas_print),
        cmocka_unit_test(bad_arena_options_are_refused),
        cmocka_unit_test(scopes_end_them),
    };
    pools_start((char *[]){NULL});
    return cmocka_run_group_tests(tests, NULL, NULL);
}
