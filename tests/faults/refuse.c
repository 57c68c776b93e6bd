/* refuse.c: runs a program again and again; the kernel refuses the n-th call that the interposer makes, once, or that one and all after
 * it; for n = 1, 2, … until no call is refused any more. Calls of everybody else are left alone, so that the program must end as if
 * nothing had happened: what pools cannot have, the next allocator gives.
 * Arguments: LIBRARY, PROGRAM, its arguments; LD_PRELOAD is set here. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALLS_MOST = 1000, ONE_OF_MANY = 40 };

static const char *library;
static unsigned calls, nth;
static bool on; /* and all after it */

/* ---- the program ---- */

static void traced_run(char **command)
{
    static const int refusable[] = {SYS_mmap, SYS_mprotect, SYS_madvise, SYS_mlock, SYS_mremap, SYS_prctl, SYS_openat, SYS_mincore};
    enum { N = sizeof refusable / sizeof *refusable };
    struct sock_filter code[N + 3] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    for (int i = 0; i < N; i++)
        code[i + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)refusable[i], (unsigned char)(N - i), 0);
    code[N + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[N + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    struct sock_fprog program = {.len = N + 3, .filter = code};
    setenv("LD_PRELOAD", library, 1);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || raise(SIGSTOP) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(126);
    execv(command[0], command);
    _exit(127);
}

/* ---- whose call it is ---- */

static bool library_made(pid_t pid, uintptr_t at, uintptr_t caller)
{
    char path[40], line[512];
    bool ours = false;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    while (maps && !ours && fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        line[strcspn(line, "\n")] = 0;
        const char *file = strchr(line, '/');
        ours = file && strcmp(file, library) == 0 && sscanf(line, "%lx-%lx", &from, &to) == 2 && ((at >= from && at < to) || (caller >= from && caller < to));
    }
    if (maps)
        fclose(maps);
    return ours;
}

static void call_judge(pid_t pid)
{
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, pid, NULL, &registers) != 0)
        return;
    long caller = ptrace(PTRACE_PEEKDATA, pid, registers.rsp, NULL); /* of the C library's syscall(), which keeps nothing on the stack */
    if (!library_made(pid, registers.rip, (uintptr_t)caller))
        return;
    calls++;
    if (nth == 0 || (on ? calls < nth : calls != nth))
        return;
    registers.orig_rax = (unsigned long long)-1;
    registers.rax = (unsigned long long)-(long long)ENOMEM;
    ptrace(PTRACE_SETREGS, pid, NULL, &registers);
}

/* ---- one run; gives the program's status ---- */

static int run(char **command)
{
    int status, result = -1;
    long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    calls = 0;
    pid_t first = fork();
    if (first == 0)
        traced_run(command);
    if (first < 0 || waitpid(first, &status, 0) != first || !WIFSTOPPED(status) || ptrace(PTRACE_SETOPTIONS, first, NULL, options) != 0)
        return -1;
    ptrace(PTRACE_CONT, first, NULL, NULL);
    for (pid_t pid; (pid = waitpid(-1, &status, __WALL)) > 0;) {
        if (!WIFSTOPPED(status)) {
            result = pid == first ? status : result;
            continue;
        }
        int event = status >> 16, number = WSTOPSIG(status);
        if (event == PTRACE_EVENT_SECCOMP)
            call_judge(pid);
        bool own = event != 0 || number == SIGTRAP || number == SIGSTOP;
        ptrace(PTRACE_CONT, pid, NULL, own ? 0 : number);
    }
    return result;
}

static unsigned judge(int status)
{
    if (status == 0)
        return 0;
    fprintf(stderr, "FAILED: call %u%s refused: the program ended with status 0x%x\n", nth, on ? " and later ones" : "", (unsigned)status);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 3 || !(library = realpath(argv[1], NULL)))
        return 2;
    if (run(argv + 2) != 0 || calls == 0) {
        fprintf(stderr, "FAILED: with nothing refused\n");
        return 1;
    }
    unsigned all = calls, failures = 0;
    for (int i = 0; i < 2; i++)
        for (on = i, nth = 1; nth <= all && nth < CALLS_MOST; nth += nth > ONE_OF_MANY ? nth / ONE_OF_MANY : 1)
            failures += judge(run(argv + 2));
    printf("%u calls, refused one at a time and from each on: %u failures\n", all, failures);
    return failures > 0;
}
