/* vfork, posix_spawn and system, over and over, while other threads allocate. A child of vfork shares our memory:
 * nothing in the allocator may take it for a process of its own. Argument: rounds. */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>

#include "check.h"
#include "threads.h"

enum { THREADS = 4 };

extern char **environ;
static atomic_bool stop;

static void *churn(void *unused)
{
    for (size_t i = 0; !atomic_load(&stop); i++)
        free(malloc(i % 5000 + 1));
    return unused;
}

static void expect_status(pid_t child, int expected)
{
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == expected, "child status 0x%x, not exit %d", (unsigned)status, expected);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "child") == 0) {
        free(malloc(1000));
        return 7;
    }
    char *arguments[] = {argv[0], "child", NULL};
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        threads[i] = thread_start(churn, NULL);
    for (long i = argument(argc, argv, 1, 100); i > 0; i--) {
        pid_t child = vfork();
        if (child == 0) {
            execv("/proc/self/exe", arguments);
            _exit(99);
        }
        expect_status(child, 7);
        CHECK(posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ) == 0);
        expect_status(child, 7);
        if (i % 10 == 0)
            CHECK(WEXITSTATUS(system("exit 5")) == 5);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < THREADS; i++)
        thread_join(threads[i]);
    return 0;
}
