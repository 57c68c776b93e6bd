/* api.c: the public functions on malloc's pools, and reports to files. */
#include "start.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int begin(void **state)
{
    (void)state;
    static char *settings[] = {NULL};
    pools_start(settings);
    return 0;
}

static void version(void **state)
{
    (void)state;
    assert_string_equal(pm_version(), PM_VERSION);
}

static void stats_of_any_size(void **state)
{
    (void)state;
    static pm_stats whole = {.struct_size = sizeof whole};
    void *p = take_class(class_of(100));
    assert_int_equal(pm_stats_get(&whole), 0);
    assert_int_equal(whole.struct_size, sizeof whole);
    assert_int_equal(whole.row[class_of(100)].used, 1);
    struct {
        pm_stats part;
        char behind;
    } older = {.part = {.struct_size = offsetof(pm_stats, committed_bytes), .committed_bytes = 12345}};
    assert_int_equal(pm_stats_get(&older.part), 0);
    assert_int_equal(older.part.reserved_bytes, whole.reserved_bytes);
    assert_int_equal(older.part.committed_bytes, 12345);
    free_block(p);
}

static void stats_refused(void **state)
{
    (void)state;
    pm_stats none = {.struct_size = 1};
    errno = 0;
    assert_int_equal(pm_stats_get(NULL), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(pm_stats_get(&none), -1);
}

static void print_refused(void **state)
{
    (void)state;
    errno = 0;
    assert_int_equal(pm_stats_print(1, (pm_format)3), -1);
    assert_int_equal(errno, EINVAL);
    for (int format = PM_FORMAT_TEXT; format <= PM_FORMAT_PROMETHEUS; format++) {
        assert_int_equal(pm_stats_print(-1, (pm_format)format), -1);
        assert_int_equal(errno, EIO);
    }
}

static void print_to_a_descriptor(void **state)
{
    (void)state;
    int nowhere = open("/dev/null", O_WRONLY);
    for (int format = PM_FORMAT_TEXT; format <= PM_FORMAT_PROMETHEUS; format++)
        assert_int_equal(pm_stats_print(nowhere, (pm_format)format), 0);
    close(nowhere);
}

static void a_report_goes_to_its_file(void **state)
{
    (void)state;
    char path[] = "/tmp/poolmalloc-report-XXXXXX", first[32] = "";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    strcpy(pm_config.stats_file, path);
    pm_config.stats_format = FORMAT_JSON;
    stats_report();
    assert_true(read(fd, first, sizeof first - 1) > 10);
    assert_memory_equal(first, "{", 1);
    close(fd);
    unlink(path);
    strcpy(pm_config.stats_file, "/no/such/folder/report"); /* one line, no more */
    stats_report();
    pm_config.stats_file[0] = 0;
    pm_config.stats_format = FORMAT_TEXT;
    stats_report(); /* to stderr */
}

static void trim_check_and_idle(void **state)
{
    (void)state;
    void *p[2000];
    for (int i = 0; i < 2000; i++)
        p[i] = memset(take_class(class_of(2000)), 1, 2000);
    for (int i = 0; i < 2000; i++)
        free_block(p[i]);
    pm_thread_idle();
    assert_true(pm_trim() > MIB);
    pm_check();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(version), cmocka_unit_test(stats_of_any_size), cmocka_unit_test(stats_refused), cmocka_unit_test(print_refused),
        cmocka_unit_test(print_to_a_descriptor), cmocka_unit_test(a_report_goes_to_its_file), cmocka_unit_test(trim_check_and_idle),
    };
    return cmocka_run_group_tests(tests, begin, NULL);
}
