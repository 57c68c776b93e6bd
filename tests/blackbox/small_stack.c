/* Functions that tell about memory, on the least stack that a thread may have. Argument: which. mallinfo2 counts no page, and may
 * not ask for any: mincore ends the program. */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "check.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

enum { HELD = 300 };

static void mincore_forbid(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mincore, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void *on_small_stack(void *what)
{
    switch (*(const char *)what) {
    case '2': return (void *)(mallinfo2().uordblks + 1);
    case '1': return (void *)((size_t)mallinfo().uordblks + 1);
    case 't': return (void *)(size_t)(malloc_trim(0) + 2);
    case 's': malloc_stats(); return what;
    case 'i': return malloc_info(0, stderr) == 0 ? what : NULL;
    default: {
        void *p = malloc(100), *q = malloc(40000);
        free(p);
        free(q);
        return what;
    }
    }
}

int main(int argc, char **argv)
{
    pthread_attr_t least;
    pthread_t thread;
    void *result, *held[HELD];
    CHECK(argc == 2 && freopen("/dev/null", "w", stderr));
    for (int i = 0; i < HELD; i++)
        CHECK((held[i] = malloc(20000)) != NULL);
    if (*argv[1] == '1' || *argv[1] == '2')
        mincore_forbid();
    pthread_attr_init(&least);
    CHECK(pthread_attr_setstacksize(&least, (size_t)PTHREAD_STACK_MIN) == 0);
    CHECK(pthread_create(&thread, &least, on_small_stack, argv[1]) == 0);
    CHECK(pthread_join(thread, &result) == 0 && result != NULL);
    for (int i = 0; i < HELD; i++)
        free(held[i]);
    return 0;
}
