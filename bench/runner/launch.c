/* launch: runs one program and tells what it used. It is small on purpose: a child's first peak RSS
 * is its parent's, so the parent must not be an interpreter.
 * Appends to FILE one line: wall_s user_s sys_s peak_rss_kib status (status as a shell's $?). */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *result_path, *preload;
static pid_t child;

static _Noreturn void usage(const char *problem)
{
    if (problem)
        fprintf(stderr, "launch: %s (see --help)\n", problem);
    else
        puts("Usage: launch [--preload LIST] [--cpu N] [--result FILE] -- COMMAND [ARGUMENT]...\n"
             "Runs COMMAND with LD_PRELOAD=LIST on processor N and appends to FILE (else prints on stderr)\n"
             "one line: wall_s user_s sys_s peak_rss_kib status. Without --preload, --result: $BENCH_PRELOAD,\n"
             "$BENCH_RESULT. A SIGTERM is passed on. Exit status: COMMAND's, 128 + signal, 127, or 2 for wrong usage.");
    exit(problem ? 2 : 0);
}

static void processor_pin(const char *text)
{
    char *end;
    long cpu = strtol(text, &end, 10);
    cpu_set_t set;
    if (*end || end == text || cpu < 0 || cpu >= CPU_SETSIZE)
        usage("bad processor number");
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        fprintf(stderr, "launch: cannot pin to processor %ld: %s\n", cpu, strerror(errno));
}

static char **options_take(char **argv)
{
    for (char **a = argv + 1; *a; a += 2) {
        if (strcmp(*a, "--help") == 0)
            usage(NULL);
        if (strcmp(*a, "--") == 0)
            return a[1] ? a + 1 : NULL;
        if (!a[1])
            break;
        if (strcmp(*a, "--preload") == 0)
            preload = a[1];
        else if (strcmp(*a, "--result") == 0)
            result_path = a[1];
        else if (strcmp(*a, "--cpu") == 0)
            processor_pin(a[1]);
        else
            usage("unknown option");
    }
    return NULL;
}

static void signal_pass(int number)
{
    if (child > 0)
        kill(child, number);
}

static double seconds_of(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec / 1e6; }

static double wall_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static _Noreturn void command_exec(char **command)
{
    if (preload && *preload)
        setenv("LD_PRELOAD", preload, 1);
    else
        unsetenv("LD_PRELOAD");
    execvp(command[0], command);
    fprintf(stderr, "launch: %s: %s\n", command[0], strerror(errno));
    _exit(127);
}

static void result_write(double wall, const struct rusage *u, int status)
{
    FILE *out = result_path && *result_path ? fopen(result_path, "a") : stderr;
    if (!out) {
        fprintf(stderr, "launch: %s: %s\n", result_path, strerror(errno));
        exit(1);
    }
    fprintf(out, "%.6f %.6f %.6f %ld %d\n", wall, seconds_of(u->ru_utime), seconds_of(u->ru_stime), u->ru_maxrss, status);
    fflush(out);
}

int main(int argc, char **argv)
{
    (void)argc;
    preload = getenv("BENCH_PRELOAD");
    result_path = getenv("BENCH_RESULT");
    char **command = options_take(argv);
    if (!command)
        usage("no command");
    struct rusage usage_of_child;
    int status;
    signal(SIGTERM, signal_pass);
    double begin = wall_now();
    child = fork();
    if (child == 0)
        command_exec(command);
    while (wait4(child, &status, 0, &usage_of_child) < 0)
        if (errno != EINTR)
            usage("cannot run the command");
    status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    result_write(wall_now() - begin, &usage_of_child, status);
    return status;
}
