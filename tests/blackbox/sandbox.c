/* A process that locks itself in: once it runs, the allocator may ask the kernel only for memory and for waiting.
 * A filter traps any other system call while threads allocate, trim and exit. */
#define _GNU_SOURCE
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "check.h"
#include "pattern.h"
#include "threads.h"

/* The second line is what threads and _exit need, whoever allocates. */
static const int allowed[] = {
    SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise, SYS_mremap, SYS_brk, SYS_futex, SYS_write, SYS_sched_yield,
    SYS_clone, SYS_clone3, SYS_exit, SYS_exit_group, SYS_set_robust_list, SYS_rseq, SYS_rt_sigprocmask, SYS_gettid, SYS_getpid,
};
enum { ALLOWED = sizeof allowed / sizeof *allowed, SLOTS = 3000 };

static void trapped(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    check_failed(__FILE__, __LINE__, "system call %d", info->si_syscall);
}

static void lock_in(void)
{
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGSYS, &action, NULL) == 0);
    struct sock_filter code[ALLOWED + 3] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    for (int i = 0; i < ALLOWED; i++)
        code[1 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], (unsigned char)(ALLOWED - i), 0);
    code[ALLOWED + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    code[ALLOWED + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {ALLOWED + 3, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(EXIT_SKIPPED);
}

static void *churn(void *context)
{
    static __thread void *slots[SLOTS];
    Random random = {(size_t)context};
    for (int i = 0; i < 200000; i++) {
        size_t at = random_below(&random, SLOTS);
        free(slots[at]);
        CHECK((slots[at] = calloc(1, random_below(&random, at % 50 ? 800 : 300000) + 1)) != NULL);
    }
    for (int i = 0; i < SLOTS; i++) {
        free(slots[i]);
        slots[i] = NULL;
    }
    malloc_trim(0);
    return NULL;
}

int main(void)
{
    free(malloc(100));
    mallopt(M_ARENA_MAX, 1); /* the C library looks at /proc when the heap of a thread's arena shrinks */
    thread_run(churn, (void *)1); /* what the C library sets up at its first thread, it may */
    lock_in();
    for (size_t i = 0; i < 20; i += 2) {
        pthread_t other = thread_start(churn, (void *)(i + 2));
        churn((void *)(i + 3));
        thread_join(other);
    }
    _exit(0);
}
