/* A thread reports without end while another forks: each child can report, too. A hang is a failure. Argument: children. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <sys/wait.h>

#include "check.h"

static void *report(void *unused)
{
    for (;;) {
        malloc_stats();
        (void)mallinfo2().arena;
    }
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    CHECK(freopen("/dev/null", "w", stderr) && pthread_create(&thread, NULL, report, NULL) == 0);
    for (long i = argument(argc, argv, 1, 200); i > 0; i--) {
        pid_t child = fork();
        if (child == 0) {
            malloc_stats();
            _exit(mallinfo2().arena == 0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    _exit(0);
}
