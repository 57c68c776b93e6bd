/* startup: what the allocator costs a program that does nothing: this program starts itself again
 * and again, and the child ends at once after one pair.
 * One operation is one start. Idea: a shell script's many short commands. */
#include "common.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void run(worker *w)
{
    char *const child[] = {(char *)"startup", (char *)"--child", NULL};
    for (; worker_grant(w, 1); w->done++) {
        pid_t pid;
        int status;
        if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, child, environ) || waitpid(pid, &status, 0) != pid)
            bench_fail("cannot start a program");
        if (status)
            bench_fail("the started program failed");
    }
}

int main(int argc, char **argv)
{
    static const workload work = {
        .name = "startup", .purpose = "Starts of a trivial program.", .run = run,
        .defaults = {.threads = 1, .operations = 1000}};
    if (argc == 2 && strcmp(argv[1], "--child") == 0) {
        free(block_new(64));
        _exit(0);
    }
    return bench_main(argc, argv, &work);
}
