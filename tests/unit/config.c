/* config.c: every kind of setting, good and bad. */
#include "unit.h"
#include "pools/class.h"
#include "ground/config.h"

#include <stdio.h>
#include <string.h>

static char complaints[4][320];
static unsigned complained;

static void remember(const char *line)
{
    if (complained < 4)
        snprintf(complaints[complained], sizeof complaints[0], "%s", line);
    complained++;
}

static config load(const char *setting, unsigned expect_bad)
{
    char copy[600];
    char *environment[] = {(char *)(uintptr_t)"PATH=/bin", copy, NULL};
    config c;
    memset(&c, 0, sizeof c);
    snprintf(copy, sizeof copy, "%s", setting);
    complained = 0;
    assert_int_equal(config_load(&c, environment, remember), expect_bad);
    assert_int_equal(complained, expect_bad);
    return c;
}

TEST(sizes_by_default)
{
    config c = load("PATH=x", 0);
    assert_int_equal(c.sizes.length, 40);
    assert_int_equal(c.sizes.at[0].size, 16);
    assert_int_equal(c.sizes.at[39].size, 32768);
    for (uint32_t i = 1; i < c.sizes.length; i++)
        assert_true(c.sizes.at[i].size > c.sizes.at[i - 1].size && c.sizes.at[i].size % QUANTUM == 0);
}

TEST(sizes_given)
{
    config c = load("POOLMALLOC_BLOCK_SIZES=100:10,1K,16,112:5,64K:2", 0);
    const block_size expect[] = {{16, 0}, {112, 15}, {1024, 0}, {65536, 2}};
    assert_int_equal(c.sizes.length, 4);
    assert_memory_equal(c.sizes.at, expect, sizeof expect);
}

/* Each request has the smallest class that holds it, the none-class beyond the largest. */
static void check_table(const size_list *sizes)
{
    classes_init(sizes);
    unsigned klass = 0;
    for (size_t size = 0; size <= BLOCK_MAX; size++) {
        while (klass < sizes->length && sizes->at[klass].size < size)
            klass++;
        assert_int_equal(class_of(size), klass < sizes->length ? klass : CLASS_NONE);
    }
}

/* The table of the default sizes is in the file, and stays as it is there: its pages are shared. */
TEST(table_of_classes)
{
    static uint16_t built[BLOCK_MAX / QUANTUM + 1];
    static const char *const others[] = {"16", "64K", "16,64K", "100,1K,20000", "32768", "16,32,48,64,80,96,112,128,160,40000"};
    memcpy(built, pm_bin_offset, sizeof built);
    config plain = load("PATH=x", 0);
    check_table(&plain.sizes);
    assert_memory_equal(built, pm_bin_offset, sizeof built);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char setting[100];
        snprintf(setting, sizeof setting, "POOLMALLOC_BLOCK_SIZES=%s", others[i]);
        config c = load(setting, 0);
        check_table(&c.sizes);
    }
    check_table(&(size_list){.length = 0}); /* of a program that has only explicit pools */
    check_table(&plain.sizes);
    assert_memory_equal(built, pm_bin_offset, sizeof built);
}

TEST(bad_values_keep_the_default)
{
    static const char *const bad[] = {
        "BLOCK_SIZES=16,,32", "BLOCK_SIZES=0",      "BLOCK_SIZES=65537",   "BLOCK_SIZES=16:x",    "BLOCK_SIZES=16:1:2",
        "BLOCK_SIZES=",       "BLOCK_SIZES=-16",    "PREFAULT=yea",        "LOCK=2",              "LIMIT=12Q",
        "LIMIT=0",            "LIMIT=99999999999G", "OVERFLOW=explode",    "PURGE_DELAY=-1",      "PURGE_DELAY=4294967295",
        "HUGEPAGES=maybe",    "STATS=exit,often",   "STATS=signal=KILL",   "STATS_FORMAT=xml",    "CHECK=01",
        "VERBOSE=",           "DISABLE=truly",      "STATS=signal=",       "LIMIT=K",             "NO_SUCH_SETTING=1",
        "PROGRAMS=,",         "PROGRAMS=",          "PROGRAMS=/bin/sh"};
    config plain = load("PATH=x", 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char setting[100];
        snprintf(setting, sizeof setting, "POOLMALLOC_%s", bad[i]);
        config c = load(setting, 1);
        assert_memory_equal(&c, &plain, sizeof c);
        *strchr(setting, '=') = 0;
        assert_non_null(strstr(complaints[0], setting));
    }
}

TEST(bad_token_is_named)
{
    load("POOLMALLOC_BLOCK_SIZES=16,3x2,64", 1);
    assert_non_null(strstr(complaints[0], "'3x2'"));
    assert_non_null(strstr(complaints[0], "using auto"));
}

TEST(too_many_or_too_long)
{
    char many[600] = "POOLMALLOC_BLOCK_SIZES=16";
    for (int i = 2; i <= 64; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), ",%d", i * 16);
    load(many, 1);
    char path[600] = "POOLMALLOC_STATS_FILE=";
    memset(path + strlen(path), 'x', 300);
    load(path, 1);
}

TEST(good_values)
{
    assert_int_equal(load("POOLMALLOC_LIMIT=3G", 0).limit, 3 * GIB);
    assert_int_equal(load("POOLMALLOC_LIMIT=none", 0).limit, 0);
    assert_int_equal(load("POOLMALLOC_PURGE_DELAY=never", 0).purge_delay, DELAY_NEVER);
    assert_int_equal(load("POOLMALLOC_PURGE_DELAY=0", 0).purge_delay, 0);
    assert_int_equal(load("POOLMALLOC_OVERFLOW=abort", 0).overflow, OVERFLOW_ABORT);
    assert_int_equal(load("POOLMALLOC_STATS=signal=SIGUSR2,full", 0).stats.signal, 12);
    assert_true(load("POOLMALLOC_STATS=exit", 0).stats.exit);
    assert_int_equal(load("POOLMALLOC_STATS_FORMAT=prometheus", 0).stats_format, FORMAT_PROMETHEUS);
}

TEST(programs)
{
    assert_true(config_names_program("", NULL));
    assert_true(config_names_program("redis-server,nginx", "/usr/sbin/nginx"));
    assert_false(config_names_program("redis-server,nginx", "/usr/sbin/ngin"));
    assert_false(config_names_program("nginx", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_by_default),     cmocka_unit_test(sizes_given), cmocka_unit_test(bad_values_keep_the_default),
        cmocka_unit_test(bad_token_is_named),   cmocka_unit_test(too_many_or_too_long),
        cmocka_unit_test(good_values),          cmocka_unit_test(programs),    cmocka_unit_test(table_of_classes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
