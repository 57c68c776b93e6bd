/* Counts the instructions that malloc and free execute, by single-stepping a child: on their hit path in a warm
 * state, and the worst over thousands of mixed operations. A system call counts as one instruction.
 * Arguments: MALLOC_LIMIT FREE_LIMIT OPERATIONS; a limit of 0 is not judged. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "check.h"
#include "pattern.h"

enum { WARM = 400, LIVE = 500, LARGEST = 32768, STEPS_MOST = 400000 };

/* One function under the glass: every count of instructions from its entry to its return. */
typedef struct {
    const char *name;
    uintptr_t entry;
    long limit, calls, fewest, most, most_size, total;
} Watched;

typedef struct { size_t size; void *block; } Request;

static void *(*volatile call_malloc)(size_t);
static void (*volatile call_free)(void *);

/* The child: stops itself around what is to be counted, so that its set-up runs at full speed. */
static void child_hits(void)
{
    for (int i = 0; i < WARM; i++)
        call_free(call_malloc(64));
    raise(SIGSTOP);
    for (int i = 0; i < 100; i++)
        call_free(call_malloc(64));
    raise(SIGSTOP);
}

static size_t draw_size(Random *random)
{
    size_t bound = (size_t)16 << random_below(random, 12);
    return random_below(random, bound < LARGEST ? bound : LARGEST) + 1;
}

static void child_mixed(long operations)
{
    static Request requests[LIVE];
    Random random = {42};
    for (int i = 0; i < LIVE; i++)
        requests[i].block = call_malloc(draw_size(&random));
    raise(SIGSTOP);
    for (long i = 0; i < operations; i++) {
        Request *request = &requests[random_below(&random, LIVE)];
        call_free(request->block);
        request->size = draw_size(&random);
        request->block = call_malloc(request->size);
    }
    raise(SIGSTOP);
}

static void child_run(long operations)
{
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    child_hits();
    child_mixed(operations);
    _exit(0);
}

/* One register only: two system calls a step are what the time goes into. */
#define child_register(child, name) ((uintptr_t)ptrace(PTRACE_PEEKUSER, child, offsetof(struct user_regs_struct, name), NULL))

/* One instruction further; false when the child stopped itself instead. */
static int child_step(pid_t child)
{
    int status;
    CHECK(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    CHECKF(WSTOPSIG(status) == SIGTRAP || WSTOPSIG(status) == SIGSTOP, "the child got signal %d", WSTOPSIG(status));
    return WSTOPSIG(status) == SIGTRAP;
}

static void call_count(Watched *function, pid_t child)
{
    long steps = 0, argument = (long)child_register(child, rdi);
    uintptr_t caller = child_register(child, rsp) + 8;
    do
        CHECKF(++steps < STEPS_MOST && child_step(child), "%s does not return", function->name);
    while (child_register(child, rsp) != caller);
    function->calls++;
    function->total += steps;
    if (steps < function->fewest)
        function->fewest = steps;
    if (steps > function->most) {
        function->most = steps;
        function->most_size = argument;
    }
}

static void child_resume_to_stop(pid_t child)
{
    int status;
    CHECK(ptrace(PTRACE_CONT, child, NULL, NULL) == 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECKF(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "the child ended with status 0x%x", (unsigned)status);
}

/* Steps through the child from one stop of its own to the next. */
static void section_count(pid_t child, Watched watched[2])
{
    while (child_step(child)) {
        uintptr_t at = child_register(child, rip);
        for (int i = 0; i < 2; i++)
            if (at == watched[i].entry)
                call_count(&watched[i], child);
    }
}

static void watch_start(Watched watched[2])
{
    for (int i = 0; i < 2; i++) {
        watched[i].fewest = STEPS_MOST;
        watched[i].calls = watched[i].most = watched[i].total = 0;
    }
}

static void hits_report(const Watched *function)
{
    printf("%-6s warm:  %ld calls, %ld to %ld instructions\n", function->name, function->calls, function->fewest, function->most);
    CHECKF(function->calls >= 100, "only %ld calls of %s seen", function->calls, function->name);
    CHECKF(function->limit == 0 || function->most <= function->limit, "%s takes %ld instructions on its hit path, more than %ld",
           function->name, function->most, function->limit);
}

static void mixed_report(const Watched *function)
{
    printf("%-6s mixed: %ld calls, %.1f instructions on average, worst %ld", function->name, function->calls,
           (double)function->total / (double)function->calls, function->most);
    printf(strcmp(function->name, "malloc") == 0 ? " (for %ld bytes)\n" : "\n", function->most_size);
}

int main(int argc, char **argv)
{
    call_malloc = (void *(*)(size_t))dlsym(RTLD_DEFAULT, "malloc");
    call_free = (void (*)(void *))dlsym(RTLD_DEFAULT, "free");
    Watched watched[2] = {{.name = "malloc", .entry = (uintptr_t)call_malloc, .limit = argument(argc, argv, 1, 0)},
                          {.name = "free", .entry = (uintptr_t)call_free, .limit = argument(argc, argv, 2, 0)}};
    CHECK(watched[0].entry != 0 && watched[1].entry != 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        child_run(argument(argc, argv, 3, 3000));
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    watch_start(watched);
    section_count(child, watched);
    hits_report(&watched[0]);
    hits_report(&watched[1]);
    child_resume_to_stop(child);
    watch_start(watched);
    section_count(child, watched);
    mixed_report(&watched[0]);
    mixed_report(&watched[1]);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return 0;
}
