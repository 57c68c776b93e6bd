/* startup: what the allocator costs a program that does nothing: this program starts itself again
 * and again, and the child ends at once after one pair.
 * again:      one operation is one start. Idea: a shell script's many short commands.
 * over_empty: beside each start one with an empty object preloaded instead of the allocator, before it
 *             or after it by turns, and the lower tenth of the ones is compared with that of the others: what a start
 *             takes wanders by more than an allocator's part in it, and what disturbs it adds. */
#include "common.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STARTS_MOST = 1 << 14, VARIABLES_MOST = 1000 };

extern char **environ;

static uint64_t ours[STARTS_MOST], empty[STARTS_MOST]; /* nanoseconds of a start */
static size_t starts;

static uint64_t start_once(char **environment)
{
    char *const child[] = {(char *)"startup", (char *)"--child", NULL};
    pid_t pid;
    int status;
    uint64_t began = time_ns();
    if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, child, environment) || waitpid(pid, &status, 0) != pid)
        bench_fail("cannot start a program");
    if (status)
        bench_fail("the started program failed");
    return time_ns() - began;
}

/* This process' environment, but libempty.so, which lies beside it, preloaded. */
static char **environment_empty(void)
{
    static char preload[4200] = "LD_PRELOAD=", *list[VARIABLES_MOST + 2];
    char *path = preload + strlen(preload);
    ssize_t length = readlink("/proc/self/exe", path, 4096);
    if (length < 0)
        bench_fail("cannot tell where this program lies");
    strcpy(memrchr(path, '/', (size_t)length), "/libempty.so");
    size_t n = 0;
    for (char **each = environ; *each && n < VARIABLES_MOST; each++)
        if (strncmp(*each, "LD_PRELOAD=", strlen("LD_PRELOAD=")) != 0)
            list[n++] = *each;
    list[n] = preload;
    return list;
}

static void run(worker *w)
{
    char **without = variant_is("over_empty") ? environment_empty() : NULL;
    for (; worker_grant(w, 1); w->done++) {
        uint64_t before = without && w->done % 2 ? start_once(without) : 0, time = start_once(environ);
        if (!without || starts == STARTS_MOST)
            continue;
        empty[starts] = before ? before : start_once(without);
        ours[starts++] = time;
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void extra(FILE *out)
{
    if (!starts)
        return;
    qsort(ours, starts, sizeof *ours, compare);
    qsort(empty, starts, sizeof *empty, compare);
    fprintf(out, "\"over_empty_us\": %.1f, \"empty_us\": %.1f, ", ((double)ours[starts / 10] - (double)empty[starts / 10]) / 1e3,
            (double)empty[starts / 10] / 1e3);
}

int main(int argc, char **argv)
{
    static const char *const variants[] = {"again", "over_empty", NULL};
    static const workload work = {
        .name = "startup", .purpose = "Starts of a trivial program.", .run = run, .extra = extra, .variants = variants,
        .defaults = {.threads = 1, .operations = 1000}};
    if (argc == 2 && strcmp(argv[1], "--child") == 0) {
        free(block_new(64));
        _exit(0);
    }
    return bench_main(argc, argv, &work);
}
