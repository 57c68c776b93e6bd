/* stats.c: figures gathered and printed while threads allocate, and names of any bytes. For ThreadSanitizer above all. */
#include "unit.h"
#include "ground/text.h"
#include "start.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

/* What scripts/poolmalloc-gdb.py reads by, without debug information. Where one of these no longer holds, the script
 * follows, and CONTROL_LAYOUT counts up. */
#define AT(type, field, offset) static_assert(offsetof(type, field) == (offset), "see scripts/poolmalloc-gdb.py")
AT(control, region, 40);
AT(control, registry, 128);
AT(control, asked, 136); /* tests/blackbox/who.py */
AT(region, slabs, 16);
AT(region, bits_end, 24);
AT(depot, fresh, 8);
AT(registry, first, 8);
AT(registry, count, 32);
AT(slab, home, 16);
AT(slab, chain, 24);
AT(slab, left, 48);
AT(slab, look, 52);
AT(slab, back, 54);
AT(slab, klass, 60);
AT(slab, state, 62);
AT(slab, remote, 64);
AT(slab, pool, 80);
AT(size_class, colours, 12);
AT(size_class, head, 22);
AT(heap, state, 2053);
AT(heap, number, 2056);
AT(heap, runs, 2160);
AT(heap, pool_bins, 6528);
AT(pm_pool, hand, 0);
AT(pm_pool, shape, 40);
AT(pm_pool, own, 80);
AT(pm_pool, slabs.count, 144);
AT(pm_pool, out, 168);
AT(pm_pool, next, 232);
AT(pm_pool, name, 269);
AT(pool_table, first, 8);
static_assert(CONTROL_LAYOUT == 16, "see scripts/poolmalloc-gdb.py");
static_assert(sizeof(size_class) == 40 && sizeof(block_run) == 24 && sizeof(pm_pool) == 312, "see scripts/poolmalloc-gdb.py");

enum { WORKERS = 3, HELD = 300, LOOKS = 150 };

static pm_pool *shared;
static bool stop;

/* Blocks of malloc and of a pool, freed by this thread and others' pools coming and going meanwhile. */
static void *work(void *others)
{
    void **blocks = others, *mine[HELD];
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        for (int i = 0; i < HELD; i++) {
            mine[i] = pm_pool_alloc(shared);
            void *old = __atomic_exchange_n(&blocks[i], take_class(class_of(100)), __ATOMIC_ACQ_REL);
            if (old)
                free_block(old); /* often another thread's */
        }
        for (int i = 0; i < HELD; i++)
            pm_pool_free(shared, mine[i]);
        pm_pool_options options = {.struct_size = sizeof options, .name = "short-lived", .block_size = 48, .sharing = PM_SHARING_LOCKED};
        pm_pool *pool = pm_pool_create(&options);
        pm_pool_free(pool, pm_pool_alloc(pool));
        pm_pool_destroy(pool);
    }
    return NULL;
}

static const pm_stats_row *row_named(const pm_stats *s, const char *name)
{
    for (const pm_stats_row *row = s->row; row < s->row + s->pools; row++)
        if (strcmp(row->name, name) == 0)
            return row;
    return NULL;
}

static pm_pool *pool_named(const char *name)
{
    pm_pool_options options = {.struct_size = sizeof options, .name = name, .block_size = 64};
    return pm_pool_create(&options);
}

/* The names of all pools in the order of their rows. */
static void assert_names(const char *expected)
{
    static pm_stats s;
    char names[200] = "";
    stats_copy(&s, sizeof s, true);
    for (const pm_stats_row *row = s.row; row < s.row + s.pools; row++)
        if (strncmp(row->name, "malloc-", 7) != 0 && strcmp(row->name, "arenas") != 0)
            strcat(strcat(names, row->name), " ");
    assert_string_equal(names, expected);
}

/* A reader without the lock then finds the pools that stay, whatever comes and goes behind them. */
TEST(pools_are_listed_oldest_first)
{
    pm_pool *a = pool_named("a"), *b = pool_named("b"), *c = pool_named("c");
    assert_names("a b c ");
    pm_pool_destroy(b);
    assert_names("a c ");
    pm_pool_destroy(c);
    assert_names("a ");
    pm_pool *d = pool_named("d");
    pm_pool_destroy(a);
    pm_pool *e = pool_named("e");
    assert_names("d e ");
    pm_pool_destroy(d);
    pm_pool_destroy(e);
    assert_names("");
    pm_pool_destroy(pool_named("f"));
    assert_names("");
}

TEST(figures_while_threads_work)
{
    static void *blocks[HELD];
    static pm_stats s;
    pthread_t threads[WORKERS];
    pm_pool_options options = {.struct_size = sizeof options, .name = "shared", .block_size = 200};
    int nowhere = open("/dev/null", O_WRONLY);
    shared = pm_pool_create(&options);
    for (int i = 0; i < WORKERS; i++)
        pthread_create(&threads[i], NULL, work, blocks);
    for (int i = 0; i < LOOKS; i++) {
        stats_copy(&s, sizeof s, true);
        assert_true(s.used_bytes < 64 * MIB && s.pools <= PM_STATS_ROWS);
        assert_non_null(row_named(&s, "shared"));
        assert_true(stats_report_to(nowhere, (stats_format)(i % 3)));
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    stats_copy(&s, sizeof s, true);
    assert_int_equal(s.busy, 0);
    assert_int_equal(row_named(&s, "shared")->used, 0);
    assert_int_equal(s.row[class_of(100)].used, HELD);
    assert_null(row_named(&s, "short-lived"));
    close(nowhere);
}

static void cleaned(const char *from, const char *expected)
{
    char to[32];
    name_clean(from, to, sizeof to);
    assert_string_equal(to, expected);
}

TEST(names_are_made_fit)
{
    cleaned("", "");
    cleaned("plain \"quoted\" \\", "plain \"quoted\" \\");
    cleaned("tab\tand\nline\x7f", "tab?and?line?");
    cleaned("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    cleaned("cut \xe2\x82", "cut ??");
    cleaned("\xc0\xaf \xe0\x80\xaf \xed\xa0\x80 \xf4\x90\x80\x80 \xff", "?? ??? ??? ???? ?");
    cleaned("0123456789012345678901234567890123456789", "0123456789012345678901234567890");
    cleaned("012345678901234567890123456789\xc3\xa9", "012345678901234567890123456789");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_made_fit),
        cmocka_unit_test(pools_are_listed_oldest_first),
        cmocka_unit_test(figures_while_threads_work),
    };
    static char *settings[] = {NULL};
    pools_start(settings);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
