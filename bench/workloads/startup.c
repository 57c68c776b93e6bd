/* startup: what the allocator costs a program that does nothing: startup_child, started again and again.
 * again:      one operation is one start. Idea: a shell script's many short commands.
 * over_empty: beside each start one with an empty object preloaded instead of the allocator, before it or after it by turns.
 * The figure is the lower tenth of single starts: what a start takes wanders by more than an allocator's part in it, and what
 * disturbs it adds. */
#include "common.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STARTS_MOST = 1 << 14, VARIABLES_MOST = 1000 };

extern char **environ;

static uint64_t ours[STARTS_MOST], empty[STARTS_MOST]; /* nanoseconds of a start */
static size_t ours_count, empty_count;
static char child_path[4200];

/* A file that lies beside this program, behind what `path` begins with. */
static void path_beside(char *path, size_t room, const char *file)
{
    size_t begun = strlen(path);
    ssize_t length = readlink("/proc/self/exe", path + begun, room - begun - strlen(file) - 1);
    char *slash = length > 0 ? memrchr(path + begun, '/', (size_t)length) : NULL;
    if (!slash)
        bench_fail("cannot tell where this program lies");
    strcpy(slash + 1, file);
}

static uint64_t start_once(char **environment)
{
    char *const child[] = {child_path, NULL};
    pid_t pid;
    int status;
    uint64_t began = time_ns();
    if (posix_spawn(&pid, child_path, NULL, NULL, child, environment) || waitpid(pid, &status, 0) != pid)
        bench_fail("cannot start a program");
    if (status)
        bench_fail("the started program failed");
    return time_ns() - began;
}

static void start_note(char **environment, uint64_t *times, size_t *count)
{
    uint64_t time = start_once(environment);
    if (*count < STARTS_MOST)
        times[(*count)++] = time;
}

/* This process' environment, but libempty.so preloaded. */
static char **environment_empty(void)
{
    static char preload[4200] = "LD_PRELOAD=", *list[VARIABLES_MOST + 2];
    path_beside(preload, sizeof preload, "libempty.so");
    size_t n = 0;
    for (char **each = environ; *each && n < VARIABLES_MOST; each++)
        if (strncmp(*each, "LD_PRELOAD=", strlen("LD_PRELOAD=")) != 0)
            list[n++] = *each;
    list[n] = preload;
    return list;
}

static void run(worker *w)
{
    path_beside(child_path, sizeof child_path, "startup_child");
    char **without = variant_is("over_empty") ? environment_empty() : NULL;
    for (; worker_grant(w, 1); w->done++) {
        if (without && w->done % 2)
            start_note(without, empty, &empty_count);
        start_note(environ, ours, &ours_count);
        if (without && w->done % 2 == 0)
            start_note(without, empty, &empty_count);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double lower_tenth_us(uint64_t *times, size_t count)
{
    qsort(times, count, sizeof *times, compare);
    return (double)times[count / 10] / 1e3;
}

static void extra(FILE *out)
{
    fprintf(out, "\"start_us\": %.1f, ", lower_tenth_us(ours, ours_count));
    if (empty_count)
        fprintf(out, "\"empty_us\": %.1f, ", lower_tenth_us(empty, empty_count));
}

static const char *const variants[] = {"again", "over_empty", NULL};
const workload bench_workload = {
    .name = "startup", .purpose = "Starts of a trivial program.", .run = run, .extra = extra, .variants = variants,
    .defaults = {.threads = 1, .operations = 1000}};
