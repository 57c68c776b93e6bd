/* api.c: the public functions on malloc's pools, and where reports go. */
#include "child.h"
#include "ground/text.h"
#include "start.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

static int begin(void **state)
{
    (void)state;
    static char *settings[] = {NULL};
    pools_start(settings);
    return 0;
}

TEST(version)
{
    assert_string_equal(pm_version(), PM_VERSION);
}

TEST(stats_of_any_size)
{
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

TEST(stats_refused)
{
    pm_stats none = {.struct_size = 1};
    errno = 0;
    assert_int_equal(pm_stats_get(NULL), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(pm_stats_get(&none), -1);
}

TEST(print_refused)
{
    errno = 0;
    assert_int_equal(pm_stats_print(1, (pm_format)3), -1);
    assert_int_equal(errno, EINVAL);
    for (int format = PM_FORMAT_TEXT; format <= PM_FORMAT_PROMETHEUS; format++) {
        assert_int_equal(pm_stats_print(-1, (pm_format)format), -1);
        assert_int_equal(errno, EIO);
    }
}

TEST(print_to_a_descriptor)
{
    int nowhere = open("/dev/null", O_WRONLY);
    for (int format = PM_FORMAT_TEXT; format <= PM_FORMAT_PROMETHEUS; format++)
        assert_int_equal(pm_stats_print(nowhere, (pm_format)format), 0);
    close(nowhere);
}

TEST(a_report_goes_to_its_file)
{
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

/* ---- readers who are gone, or asleep ---- */

static void print_to_nobody(void **state)
{
    int ends[2];
    sigset_t pending;
    (void)state;
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    errno = 0;
    assert_int_equal(pm_stats_print(ends[1], PM_FORMAT_TEXT), -1); /* and no SIGPIPE, which would end us */
    assert_int_equal(errno, EIO);
    sigpending(&pending);
    assert_int_equal(sigismember(&pending, SIGPIPE), 0);
    close(ends[1]);
}

static void print_to_a_sleeper(void **state)
{
    int ends[2];
    char page[4096] = "";
    (void)state;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    while (write(ends[1], page, sizeof page) > 0)
        ;
    assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0); /* a write would wait for ever */
    assert_int_equal(pm_stats_print(ends[1], PM_FORMAT_TEXT), -1);
    close(ends[0]);
    close(ends[1]);
}

static os_claim claim;
static int claimed;

static void *claim_wait(void *unused)
{
    os_claim_take(&claim, true);
    __atomic_add_fetch(&claimed, 1, __ATOMIC_SEQ_CST);
    os_claim_give(&claim);
    return unused;
}

static void a_report_is_one_threads(void **state)
{
    pthread_t t;
    (void)state;
    assert_true(os_claim_take(&claim, false));
    assert_false(os_claim_take(&claim, false));
    pthread_create(&t, NULL, claim_wait, NULL);
    usleep(20000);
    assert_int_equal(LOAD(&claimed), 0);
    os_claim_give(&claim);
    pthread_join(t, NULL);
    assert_int_equal(claimed, 1);
    claim.process = os_pid() + 1; /* a parent's */
    assert_true(os_claim_take(&claim, false));
    os_claim_give(&claim);
}

/* ---- where reports go ---- */

#define KEPT 100 /* no descriptor of ours is below */

/* As at the start of a program with these settings. */
static void begin_with(const char *file)
{
    strcpy(pm_config.stats_file, file);
    pm_config.stats.exit = true;
    report_start();
}

static void close_kept(void)
{
    for (int fd = KEPT; fd < KEPT + 10; fd++)
        close(fd);
}

static void put_nothing_at(int fd)
{
    int nothing = open("/dev/null", O_WRONLY);
    if (dup2(nothing, fd) != fd)
        _exit(9);
}

static void errors_closed(void)
{
    begin_with("");
    put_nothing_at(2);
    stats_report();
}
static void errors_closed_twice(void)
{
    begin_with("");
    put_nothing_at(2);
    close_kept();
    stats_report();
}
static void duplicate_closed(void)
{
    begin_with("");
    close_kept();
    stats_report();
}
static void closed_from_the_start(void)
{
    int other = dup(2);
    close(2);
    begin_with("");
    dup2(other, 2);
    stats_report();
}
static void output_closed(void)
{
    dup2(2, 1);
    begin_with("/dev/stdout");
    put_nothing_at(1);
    stats_report();
}
static void number_closed(void)
{
    dup2(2, 57);
    begin_with("/proc/self/fd/57");
    put_nothing_at(57);
    put_nothing_at(2);
    stats_report();
}
static void of_a_child(void)
{
    begin_with("/dev/stderr");
    if (fcntl(KEPT, F_GETFD) < 0)
        _exit(8);
    pid_t child = fork();
    if (child == 0) {
        stats_report();
        _exit(fcntl(KEPT, F_GETFD) >= 0 || fcntl(KEPT + 1, F_GETFD) >= 0 ? 7 : 0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    _exit(WEXITSTATUS(status));
}

static void reports_reach_streams(void **state)
{
    void (*const reached[])(void) = {errors_closed, duplicate_closed, output_closed, number_closed, of_a_child};
    void (*const gone[])(void) = {errors_closed_twice, closed_from_the_start};
    (void)state;
    for (size_t i = 0; i < sizeof reached / sizeof *reached; i++) {
        assert_exits(reached[i], 0);
        assert_said("pools");
    }
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
        assert_exits(gone[i], 0);
        assert_string_equal(child_said, "");
    }
}

static char folder[] = "/tmp/poolmalloc-api-XXXXXX";

static void report_to(const char *file)
{
    if (chdir(folder) != 0)
        _exit(6);
    path_start();
    if (chdir("/") != 0)
        _exit(6);
    strcpy(pm_config.stats_file, file);
    stats_report();
}
static void to_a_folder(void) { report_to("none/report"); }
static void to_a_link(void) { report_to("link"); }
static void to_a_fifo(void) { report_to("fifo"); }
static void to_a_full_disk(void) { report_to("/dev/full"); }
static void to_a_name(void) { report_to("report-%p"); }
static void to_a_long_name(void)
{
    if (chdir(folder) != 0)
        _exit(6);
    char name[201];
    memset(name, 'x', 200);
    name[200] = 0;
    for (int i = 0; i < 20; i++)
        if (mkdir(name, 0700) != 0 || chdir(name) != 0)
            _exit(6);
    path_start();
    strcpy(pm_config.stats_file, name);
    strcat(pm_config.stats_file, "-and-more-than-a-path-may-have-at-all-in-the-end");
    stats_report();
}

static void refusals_are_told(void **state)
{
    static const struct {
        void (*act)(void);
        const char *words;
    } cases[] = {
        {to_a_folder, "'none/report' cannot be opened (error 2)"},
        {to_a_link, "'link' is a symbolic link, which is not followed"},
        {to_a_fifo, "'fifo' has no reader"},
        {to_a_full_disk, "'/dev/full' takes not all of the report"},
        {to_a_long_name, "is too long"},
    };
    char line[300];
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(line, sizeof line, "cd %s && ln -s target link && mkfifo fifo", folder);
    assert_int_equal(system(line), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_exits(cases[i].act, 0);
        assert_said("poolmalloc: POOLMALLOC_STATS_FILE: ");
        assert_said(cases[i].words);
    }
    assert_exits(to_a_name, 0);
    assert_string_equal(child_said, "");
    snprintf(line, sizeof line, "cd %s && ls report-[0-9]* >/dev/null && test ! -e target", folder);
    assert_int_equal(system(line), 0);
    snprintf(line, sizeof line, "rm -r %s", folder);
    assert_int_equal(system(line), 0);
}

TEST(nobody_looks_without_who_init)
{
    errno = 0;
    assert_int_equal(pm_who_start(0), -1);
    assert_int_equal(errno, ENOTSUP);
}

TEST(trim_check_and_idle)
{
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
        cmocka_unit_test(print_to_nobody), cmocka_unit_test(print_to_a_sleeper), cmocka_unit_test(a_report_is_one_threads),
        cmocka_unit_test(reports_reach_streams), cmocka_unit_test(refusals_are_told), cmocka_unit_test(nobody_looks_without_who_init),
    };
    return cmocka_run_group_tests(tests, begin, NULL);
}
