/* A library's handlers of fork, registered before the allocator's own, allocate: in prepare after it, in parent and child before it. The
 * library is linked or preloaded. Argument: forks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/wait.h>

#include "check.h"

int main(int argc, char **argv)
{
    int (*calls)(void);
    *(void **)&calls = dlsym(RTLD_DEFAULT, "early_calls");
    CHECK(calls != NULL && calls() == 0);
    long forks = argument(argc, argv, 1, 100);
    alarm(HANG_SECONDS);
    for (long i = 0; i < forks; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(HANG_SECONDS);
            _exit(calls() != 2 * i + 2 ? 2 : 3);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECKF(WIFEXITED(status) && WEXITSTATUS(status) == 3, "the child ended with status 0x%x", (unsigned)status);
    }
    CHECK(calls() == 2 * forks);
    return 0;
}
