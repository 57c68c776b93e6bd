/* A signal at every instruction of malloc and free, in a handler that allocates and forks. The trap flag gives the signals: after each
 * instruction of ours the handler runs. The child uses the allocator in the handler, then finishes the interrupted call, and goes on;
 * so does the parent. Last, threads whose handler runs at one instruction each, from their first call to behind their heap's end.
 * Argument: one in so many instructions. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <malloc.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>
#include <ucontext.h>

#include "check.h"
#include "pattern.h"
#include "threads.h"

enum { TRAP_FLAG = 0x100, KEPT = 4000 };

static void (*check_all)(void); /* pm_check */
static uintptr_t base, low, high; /* where the library lies, and its code */
static long every, steps, forks, only; /* the one instruction at which the handler does anything, or 0 */
static volatile bool stepping, is_child;
static char *kept[KEPT];

/* ---- the library ---- */

static int library_found(struct dl_phdr_info *info, size_t size, void *inside)
{
    (void)size;
    uintptr_t at = (uintptr_t)inside;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t from = info->dlpi_addr + p->p_vaddr;
        if (p->p_type == PT_LOAD && (p->p_flags & PF_X) && at >= from && at < from + p->p_memsz) {
            base = info->dlpi_addr;
            low = from;
            high = from + p->p_memsz;
            return 1;
        }
    }
    return 0;
}

/* ---- what both sides do with it ---- */

/* No sizes of the classes that are stepped through: a handler that comes between two instructions of a call and has the same bin change
 * is beyond what any allocator without locks can bear. */
static void use_allocator(uint64_t seed)
{
    static const size_t sizes[] = {16, 100, 200, 330, 520, 800, 1200, 1800, 2700, 3600, 6600, 9300, 14000, 31000, 47000, 70000, 160000, 300000};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    char *blocks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        CHECK((blocks[i] = malloc(sizes[i])) != NULL);
        pattern_stamp(blocks[i], sizes[i], seed + i);
    }
    for (size_t i = COUNT; i-- > 0;) {
        CHECK(pattern_stamped(blocks[i], sizes[i], sizes[i], seed + i));
        free(blocks[i]);
    }
}

static size_t kept_size(size_t i) { return 16 + i % 9 * 100; }

static void kept_take(void)
{
    for (size_t i = 0; i < KEPT; i++) {
        CHECK((kept[i] = malloc(kept_size(i))) != NULL);
        pattern_stamp(kept[i], kept_size(i), i);
    }
}

static void kept_end(size_t i)
{
    CHECKF(kept[i] == NULL || pattern_stamped(kept[i], kept_size(i), kept_size(i), i), "kept block %zu has changed", i);
    free(kept[i]);
    kept[i] = NULL;
}

/* ---- the handler ---- */

static void fork_here(ucontext_t *interrupted)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(HANG_SECONDS);
        is_child = true;
        interrupted->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
        use_allocator(7);
        return; /* into the call that was interrupted */
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECKF(status == 0, "the child of step %ld, library + 0x%lx, ended with status 0x%x%s", steps,
           (unsigned long)((uintptr_t)interrupted->uc_mcontext.gregs[REG_RIP] - base), (unsigned)status, status == 14 ? " (it hung)" : "");
    forks++;
}

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    ucontext_t *interrupted = context;
    uintptr_t at = (uintptr_t)interrupted->uc_mcontext.gregs[REG_RIP];
    if (!stepping)
        interrupted->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    else if (at >= low && at < high && (++steps, only ? steps == only : steps % every == 0)) {
        use_allocator(3);
        fork_here(interrupted);
        stepping = !only;
    }
}

static void steps_begin(void)
{
    if (only && steps == only)
        return; /* it was there */
    stepping = true;
    __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "cc", "memory");
}

/* Where a child ends: it has finished the call as its parent will. */
static void steps_end(void)
{
    stepping = false;
    __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "cc", "memory");
    if (!is_child)
        return;
    use_allocator(11);
    for (size_t i = 0; i < KEPT; i++)
        kept_end(i);
    if (check_all)
        check_all();
    _exit(0);
}

/* ---- the calls ---- */

static void *stepped_malloc(size_t size)
{
    steps_begin();
    char *p = malloc(size);
    steps_end();
    CHECK(p != NULL);
    memset(p, 1, size);
    return p;
}

static void stepped_free(void *p)
{
    steps_begin();
    free(p);
    steps_end();
}

/* The short way, the refill of a bin, a new slab, and a class that was never used; a bin that is full. */
static void this_thread(void)
{
    void *p[900];
    free(malloc(5000));
    for (int i = 0; i < 2; i++)
        stepped_free(stepped_malloc(5000));
    stepped_free(stepped_malloc(24000));
    for (int i = 0; i < 12; i++)
        p[i] = stepped_malloc(20000); /* one in six opens a slab */
    for (int i = 0; i < 12; i++)
        stepped_free(p[i]);
    for (int i = 0; i < 900; i++)
        p[i] = malloc(48);
    for (int i = 0; i < 900; i++)
        if (i % 60 < 2)
            stepped_free(p[i]);
        else
            free(p[i]);
}

static void *others_blocks(void *blocks)
{
    for (int i = 0; i < 200; i++)
        ((void **)blocks)[i] = malloc(72);
    return NULL;
}

/* Another thread's, which has ended or waits. */
static void blocks_of_others(void)
{
    void *p[200];
    thread_run(others_blocks, p);
    for (int i = 0; i < 200; i++)
        if (i % 31 < 2)
            stepped_free(p[i]);
        else
            free(p[i]);
}

/* ---- a thread's beginning and end ---- */

static pthread_key_t key; /* younger than the library's */

static void heap_has_ended(void *unused)
{
    (void)unused;
    steps_end();
    stepped_free(stepped_malloc(5000));
}

static void *live(void *unused)
{
    CHECK(pthread_setspecific(key, &key) == 0);
    stepped_free(stepped_malloc(5000));
    steps_begin();
    return unused;
}

static void lives(void)
{
    CHECK(pthread_key_create(&key, heap_has_ended) == 0);
    only = 1;
    do {
        steps = 0;
        thread_run(live, NULL);
    } while (steps == only && (only += 3 * every + 1));
    CHECK(only > 1000);
    only = 0;
}

static void *wait_for_ever(void *barrier)
{
    free(malloc(100));
    pthread_barrier_wait(barrier);
    pause();
    return NULL;
}

int main(int argc, char **argv)
{
    every = argument(argc, argv, 1, 1);
    *(void **)&check_all = dlsym(RTLD_DEFAULT, "pm_check");
    CHECK(dl_iterate_phdr(library_found, dlsym(RTLD_DEFAULT, "malloc")) != 0);
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
    alarm(HANG_SECONDS);
    kept_take();
    this_thread();
    long alone = forks;
    pthread_barrier_t ready;
    pthread_barrier_init(&ready, NULL, 2);
    thread_start(wait_for_ever, &ready);
    pthread_barrier_wait(&ready);
    this_thread();
    blocks_of_others();
    lives();
    for (size_t i = 0; i < KEPT; i++)
        kept_end(i);
    if (check_all)
        check_all();
    printf("%ld instructions, %ld forks, %ld of them with one thread\n", steps, forks, alone);
    CHECK(alone > 0 && forks > alone);
    return 0;
}
