/* profile.c: what POOLMALLOC_PROFILE records, whose a file is, and what is refused. */
#include "unit.h"
#include "start.h"

#include "insight/profile.h"
#include "pools/seams.h"

#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/poolmalloc-profile-XXXXXX", path[64];

static profile_file *read_file(const char *from)
{
    static profile_file f;
    int fd = open(from, O_RDONLY);
    assert_true(fd >= 0 && read(fd, &f, sizeof f) == (ssize_t)sizeof f);
    close(fd);
    return &f;
}

static void write_file(const char *to, const void *bytes, size_t count)
{
    int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0 && write(fd, bytes, count) == (ssize_t)count);
    close(fd);
}

static const char *path_set(const char *name)
{
    snprintf(pm_config.profile, sizeof pm_config.profile, "%s/%s", folder, name);
    return pm_config.profile;
}

static int begin(void **state)
{
    (void)state;
    static char setting[100];
    static char *settings[] = {setting, "POOLMALLOC_BLOCK_SIZES=64:10,512", NULL};
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/first", folder);
    snprintf(setting, sizeof setting, "POOLMALLOC_PROFILE=%s", path);
    if (config_load(&pm_config, settings, NULL))
        return -1;
    profile_init();
    return pm_every_call_slow && pools_init() ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static void *take(size_t size) { return alloc_slow(class_of(size), size); }
static void give(void *p) { free_block(p); }

TEST(sizes_reach_the_largest_block)
{
    assert_int_equal(pm_config.sizes.length, 3);
    assert_int_equal(pm_config.sizes.at[0].count, 0);
    assert_int_equal(pm_config.sizes.at[2].size, BLOCK_MAX);
}

TEST(calls_and_the_peak_are_counted)
{
    void *p[10];
    for (int i = 0; i < 10; i++)
        p[i] = take(40);
    for (int i = 0; i < 7; i++)
        give(p[i]);
    void *larger = take(50);
    assert_int_equal(watch_usable(larger, 64), 50);
    watch_resize(larger, 20); /* stays where it is */
    assert_int_equal(watch_usable(larger, 64), 20);
    const profile_file *f = read_file(path);
    assert_int_equal(f->head.pid, os_pid());
    assert_int_equal(f->head.peak_bytes, 400);
    assert_int_equal(f->head.live_bytes, 3 * 40 + 20);
    assert_int_equal(f->row[2].calls, 10);
    assert_int_equal(f->row[2].live, 3);
    assert_int_equal(f->row[2].most, 10);
    assert_int_equal(profile_at_peak(f, 2), 10);
    assert_int_equal(f->row[3].calls, 1);
    assert_int_equal(f->row[1].calls, 1);
    assert_int_equal(profile_at_peak(f, 3), 0);
    give(larger);
    for (int i = 7; i < 10; i++)
        give(p[i]);
    assert_int_equal(read_file(path)->head.live_bytes, 0);
}

TEST(large_requests_have_a_row)
{
    watch_alloc(&path, BLOCK_MAX + 1); /* another allocator's */
    watch_alloc(&path, 300);           /* what was forwarded for want of memory */
    watch_alloc(NULL, 300);
    watch_free(&path, BLOCK_MAX + 1);
    watch_free(&path, BLOCK_MAX + 1);
    const profile_file *f = read_file(path);
    assert_int_equal(f->row[PROFILE_LARGE].calls, 1);
    assert_int_equal(f->row[PROFILE_LARGE].live, 0);
    assert_int_equal(f->row[PROFILE_LARGE].most, 1);
    assert_int_equal(f->row[300 / QUANTUM].calls, 1);
}

/* What was never recorded is not counted, nor does its size become less than it is. */
TEST(unknown_blocks)
{
    void *p = take(60);
    watch_free(p, 64);
    uint64_t live = read_file(path)->head.live_bytes;
    assert_int_equal(watch_usable(p, 64), 64);
    watch_resize(p, 30);
    give(p);
    assert_int_equal(read_file(path)->head.live_bytes, live);
}

TEST(a_child_has_its_own)
{
    char childs[96];
    void *mine = take(64);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        give(mine); /* its parent's to count */
        take(200);
        _exit(0);
    }
    int status;
    assert_true(waitpid(child, &status, 0) == child && status == 0);
    snprintf(childs, sizeof childs, "%s.%d", path, (int)child);
    const profile_file *f = read_file(childs);
    assert_int_equal(f->head.pid, child);
    assert_int_equal(f->head.live_bytes, 200);
    assert_int_equal(f->row[3].calls, 0);
    give(mine);
}

/* As after exec: calls add up, the greater peak stays, nothing is live. */
TEST(the_same_process_goes_on)
{
    void *p = take(64);
    uint64_t calls = read_file(path)->row[3].calls, peak = read_file(path)->head.peak_bytes;
    profile_init();
    assert_int_equal(read_file(path)->head.live_bytes, 0);
    take(64);
    assert_int_equal(read_file(path)->row[3].calls, calls + 1);
    assert_true(read_file(path)->head.peak_bytes >= peak);
    free_block(p);
}

TEST(what_a_process_left_is_written_over)
{
    static profile_file left = {.head = {.magic = PROFILE_MAGIC, .version = 1, .pid = 4194000, .started = 17}};
    left.row[5].calls = 99;
    write_file(path_set("left"), &left, sizeof left);
    profile_init();
    assert_int_equal(read_file(pm_config.profile)->row[5].calls, 0);
    assert_int_equal(read_file(pm_config.profile)->head.version, PROFILE_VERSION);
}

static void refused(const char *where)
{
    snprintf(pm_config.profile, sizeof pm_config.profile, "%s", where);
    void *p = take(48); /* the profile of before goes on */
    profile_init();
    give(p);
}

TEST(what_is_no_profile_is_left_alone)
{
    char alien[80], found[16] = "";
    write_file(path_set("alien"), "my only copy", 13);
    snprintf(alien, sizeof alien, "%s", pm_config.profile);
    refused(alien);
    int fd = open(alien, O_RDONLY);
    assert_int_equal(read(fd, found, sizeof found), 13);
    assert_string_equal(found, "my only copy");
    close(fd);
    refused("/no/such/folder/profile");
    refused("/dev/full");
    for (size_t i = 0; i + 2 < sizeof pm_config.profile; i += 2) /* longer than a path, with the process's id for each */
        memcpy(pm_config.profile + i, "%p", 3);
    profile_init();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_reach_the_largest_block), cmocka_unit_test(calls_and_the_peak_are_counted),
        cmocka_unit_test(large_requests_have_a_row), cmocka_unit_test(unknown_blocks), cmocka_unit_test(a_child_has_its_own),
        cmocka_unit_test(the_same_process_goes_on), cmocka_unit_test(what_a_process_left_is_written_over),
        cmocka_unit_test(what_is_no_profile_is_left_alone),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
