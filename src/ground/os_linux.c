/* os_linux.c: os.h on Linux. */
#include "ground/os.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <errno.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

#if defined(__x86_64__)
static void pause_cpu(void) { __builtin_ia32_pause(); }
#elif defined(__aarch64__)
static void pause_cpu(void) { __asm__ volatile("yield"); }
#else
static void pause_cpu(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
#endif

static long call(long nr, long a, long b, long c, long d, long e, long f)
{
    int saved = errno;
    long result = syscall(nr, a, b, c, d, e, f);
    if (result == -1)
        result = -errno;
    errno = saved;
    return result;
}

#define CALL3(nr, a, b, c) call(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define CALL4(nr, a, b, c, d) call(nr, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

/* ---- lock ---- */

uint32_t os_generation;
void os_forked(void) { os_generation += 4; }

bool os_lock_inherit(os_lock *l)
{
    uint32_t held = LOAD(&l->state);
    return held && (held & ~3U) != os_generation &&
           __atomic_compare_exchange_n(&l->state, &held, os_generation + 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

bool os_lock_wait(os_lock *l)
{
    for (int spin = 0; spin < 100; spin++) {
        pause_cpu();
        if (LOAD(&l->state) == 0 && os_lock_try_free(l, 1))
            return false;
    }
    while (!os_lock_try_free(l, 2)) {
        uint32_t held = os_generation + 1;
        if (os_lock_inherit(l))
            return true;
        if (__atomic_compare_exchange_n(&l->state, &held, held + 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED) || held == os_generation + 2)
            os_wait(&l->state, os_generation + 2);
    }
    return false;
}

void os_wait(uint32_t *word, uint32_t value) { CALL4(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, 0); }
void os_wake(uint32_t *word) { CALL3(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1); }

void os_pause(unsigned turn)
{
    static const struct timespec moment = {0, 100000};
    if (turn < 100)
        CALL3(SYS_sched_yield, 0, 0, 0);
    else
        CALL3(SYS_nanosleep, &moment, NULL, 0);
}

/* ---- memory ---- */

static void *map(void *at, size_t bytes, int protection, int flags, int fd)
{
    long got = call(SYS_mmap, (long)at, (long)bytes, protection, flags, fd, 0);
    return got < 0 ? NULL : (void *)got;
}

/* Somebody who does not know the flag, an emulator, takes the place for a hint. */
static bool map_at(char *at, size_t bytes, int protection, int flags)
{
    char *got = map(at, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | flags, -1);
    if (got && got != at)
        os_unmap(got, bytes);
    return got == at;
}

bool os_map_at(void *at, size_t bytes) { return map_at(at, bytes, PROT_READ | PROT_WRITE, 0); }
bool os_shut_hole(void *at, size_t bytes) { return map_at(at, bytes, PROT_NONE, MAP_NORESERVE); }
void *os_map(size_t bytes) { return map(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1); }

/* Without MAP_NORESERVE: what is committed counts then, so that the kernel refuses what it would refuse to anybody. */
void *os_reserve(size_t bytes) { return map(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1); }
bool os_commit(void *at, size_t bytes) { return CALL3(SYS_mprotect, at, bytes, PROT_READ | PROT_WRITE) == 0; }
bool os_uncommit(void *at, size_t bytes) { return CALL3(SYS_mprotect, at, bytes, PROT_NONE) == 0; }
void os_unmap(void *at, size_t bytes) { CALL3(SYS_munmap, at, bytes, 0); }
void os_shut(void *at, size_t bytes) { map(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1); }
bool os_move(void *from, size_t bytes, void *to, size_t to_bytes)
{
    return call(SYS_mremap, (long)from, (long)bytes, (long)to_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, (long)to, 0) == (long)to;
}
bool os_purge(void *at, size_t bytes) { return CALL3(SYS_madvise, at, bytes, MADV_DONTNEED) == 0; }
bool os_mlock(void *at, size_t bytes) { return CALL3(SYS_mlock, at, bytes, 0) == 0; }

void os_huge(void *at, size_t bytes, bool wanted)
{
    CALL3(SYS_madvise, at, bytes, wanted ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

void os_populate(void *at, size_t bytes)
{
    if (CALL3(SYS_madvise, at, bytes, MADV_POPULATE_WRITE) == 0)
        return;
    for (size_t i = 0; i < bytes; i += os_page_size()) { /* kernels before 5.14; nobody else uses these pages yet */
        volatile char *c = (char *)at + i;
        *c = *c;
    }
}

void os_name(void *at, size_t bytes, const char *name)
{
    call(SYS_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, (long)at, (long)bytes, (long)name, 0);
}

size_t os_resident(void *at, size_t bytes)
{
    unsigned char in_core[64]; /* qemu fills one for each 4 KiB, whatever the page size that it tells */
    size_t page = os_page_size(), resident = 0, most = size_max(sizeof in_core * 4 * KIB / page, 1);
    for (size_t done = 0; done < bytes;) {
        size_t pages = size_min(most, (bytes - done + page - 1) / page);
        if (CALL3(SYS_mincore, (char *)at + done, pages * page, in_core) != 0)
            return resident;
        for (size_t i = 0; i < pages; i++)
            resident += (in_core[i] & 1) ? page : 0;
        done += pages * page;
    }
    return resident;
}

/* ---- files ---- */

#define OWN_DESCRIPTORS 100 /* below it, programs know which number an open gives next */
#define PATIENCE 1          /* seconds that a write waits for somebody who does not read */

int os_keep(int fd)
{
    return (int)CALL3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, OWN_DESCRIPTORS);
}

int os_open(const char *path, int flags, int mode)
{
    int low = (int)CALL4(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC | O_NOCTTY, mode);
    int fd = low < 0 ? low : os_keep(low);
    if (fd < 0) /* RLIMIT_NOFILE is below that */
        return low;
    os_close(low);
    return fd;
}

long os_read(int fd, void *to, size_t bytes) { return CALL3(SYS_read, fd, to, bytes); }
void os_close(int fd) { CALL3(SYS_close, fd, 0, 0); }

uint64_t os_signals_hold(void)
{
    uint64_t all = UINT64_MAX, before = 0;
    CALL4(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
    return before;
}

void os_signals_release(uint64_t before) { CALL4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before); }

/* With all signals held. 0 or an error. Asked first, a pipe or terminal takes what fits into one of its pages. */
static long write_all(int fd, const char *at, size_t bytes)
{
    while (bytes > 0) {
        struct pollfd ready = {fd, POLLOUT, 0};
        struct timespec patience = {PATIENCE, 0};
        if (CALL4(SYS_ppoll, &ready, 1, &patience, NULL) == 0)
            return -EAGAIN;
        long n = CALL3(SYS_write, fd, at, size_min(bytes, 1024));
        if (n <= 0)
            return n < 0 ? n : -EIO;
        at += n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* What a write sends to its own thread is taken out of its pending signals again. */
static void signals_take(uint64_t raised)
{
    struct timespec now = {0, 0};
    if (raised)
        CALL4(SYS_rt_sigtimedwait, &raised, NULL, &now, sizeof raised);
}

bool os_write(int fd, const void *from, size_t bytes)
{
    uint64_t held = os_signals_hold(), pending = 0;
    CALL3(SYS_rt_sigpending, &pending, sizeof pending, 0);
    long error = write_all(fd, from, bytes);
    if (error == -EPIPE || error == -EFBIG)
        signals_take(((uint64_t)1 << (SIGPIPE - 1) | (uint64_t)1 << (SIGXFSZ - 1)) & ~pending);
    os_signals_release(held);
    return error == 0;
}

bool os_claim_take(os_claim *c, bool wait)
{
    uint64_t held = os_signals_hold();
    uint32_t me = os_pid(), found = 0, turn = 0;
    while (!__atomic_compare_exchange_n(&c->process, &found, me, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        if (found != me) /* a parent's, or free by now */
            continue;
        if (!wait) {
            os_signals_release(held);
            return false;
        }
        os_pause(turn++);
        found = 0;
    }
    c->held = held;
    return true;
}

void os_claim_give(os_claim *c)
{
    uint64_t held = c->held;
    __atomic_store_n(&c->process, 0, __ATOMIC_RELEASE); /* os_claim_take acquires */
    os_signals_release(held);
}

bool os_file_id(int fd, os_id *id)
{
    struct stat s;
    if (CALL3(SYS_fstat, fd, &s, 0) != 0)
        return false;
    *id = (os_id){s.st_dev, s.st_ino};
    return true;
}

bool os_folder(char *to, size_t bytes) { return CALL3(SYS_getcwd, to, bytes, 0) > 0 && *to == '/'; }

long os_readlink(const char *path, char *to, size_t bytes)
{
    return CALL4(SYS_readlinkat, AT_FDCWD, path, to, bytes);
}

void *os_map_file(int fd, size_t bytes) { return map(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd); }

/* ---- the process's end ---- */

extern int __cxa_atexit(void (*)(void *), void *, void *);
extern void __cxa_finalize(void *);

static void flag_set(void *flag) { *(bool *)flag = true; }

void os_exit_watch(bool *exiting) { __cxa_atexit(flag_set, exiting, exiting); }
void os_exit_unwatch(bool *exiting) { __cxa_finalize(exiting); }

/* ---- facts ---- */

uint64_t os_now_ms(void)
{
    struct timespec t = {0, 0};
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t); /* the C library's: no system call, which a sandbox may forbid */
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t os_random(void)
{
    uint64_t word[2] = {0, 0};
    const void *bytes = (const void *)getauxval(AT_RANDOM); /* NOLINT: the kernel hands out a pointer as a number */
    if (bytes)
        memcpy(word, bytes, sizeof word);
    /* The stack protector and pointer guard are taken from these bytes too: mix, so that an address tells nothing. */
    uint64_t mixed = (word[0] ^ (word[1] << 17 | word[1] >> 47)) * 0x9E3779B97F4A7C15u;
    return mixed ^ mixed >> 31;
}

uint64_t os_secret(void)
{
    static uint64_t calls;
    uint64_t word = 0;
    if (CALL3(SYS_getrandom, &word, sizeof word, 1 /* GRND_NONBLOCK */) != sizeof word) /* before 3.17, or early at boot */
        word = os_random() * (2 * __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) + 1);
    return word ^ word << 23 ^ os_random() >> 9;
}

/* The kernel lays the first stack at the top, and these bytes on it; the caller's own stack may lie anywhere. */
uintptr_t os_address_limit(void)
{
    int here;
    uintptr_t high = getauxval(AT_RANDOM) | (uintptr_t)&here;
    return (uintptr_t)1 << (64 - __builtin_clzll(high));
}

size_t os_page_size(void)
{
    static size_t size;
    if (size == 0)
        size = getauxval(AT_PAGESZ);
    return size;
}

size_t os_address_space(void)
{
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    CALL4(SYS_prlimit64, 0, RLIMIT_AS, 0, &limit);
    return limit.rlim_cur == RLIM_INFINITY ? SIZE_MAX : limit.rlim_cur;
}

size_t os_memory(void)
{
    struct sysinfo info = {.mem_unit = 1};
    CALL3(SYS_sysinfo, &info, 0, 0);
    return (size_t)info.totalram * info.mem_unit;
}

unsigned os_processors(void)
{
    uint64_t mask[16] = {0};
    unsigned n = 0;
    if (CALL3(SYS_sched_getaffinity, os_pid(), sizeof mask, mask) > 0)
        for (size_t i = 0; i < sizeof mask / sizeof *mask; i++)
            for (; mask[i]; mask[i] &= mask[i] - 1)
                n++;
    return n;
}

bool os_privileged(void) { return getauxval(AT_SECURE) != 0; }
const char *os_program(void) { return (const char *)getauxval(AT_EXECFN); } /* NOLINT: as above */
bool os_thread_lives(uint32_t process, uint32_t id) { return CALL3(SYS_tgkill, process, id, 0) != -ESRCH; }
uint32_t os_pid(void) { return (uint32_t)CALL3(SYS_getpid, 0, 0, 0); }
uint32_t os_thread(void) { return (uint32_t)CALL3(SYS_gettid, 0, 0, 0); }
void os_abort(void) { abort(); }
void os_signal_again(int number, const void *info) { CALL4(SYS_rt_tgsigqueueinfo, os_pid(), os_thread(), number, info); }

/* ---- stacks ---- */

/* A call that every program may make, refused for its first argument after it has read what the second points to. */
bool os_readable(const void *word) { return CALL4(SYS_rt_sigprocmask, -1, word, NULL, 8) != -EFAULT; }

#if defined(__x86_64__)
#define STACK_WORDS 2048
#define STACK_PROBES 64 /* words that could be an address: a system call each, and a stack may be full of pointers */

/* Whether a call instruction ends there. */
__attribute__((no_sanitize("address", "thread"))) static bool follows_call(uintptr_t address)
{
    static const unsigned char lengths[] = {2, 3, 4, 6, 7};
    const unsigned char *end = (const unsigned char *)address;
    if (!os_readable(end - 8))
        return false;
    if (end[-5] == 0xe8)
        return true;
    for (size_t i = 0; i < sizeof lengths; i++)
        if (end[-lengths[i]] == 0xff && (end[1 - lengths[i]] & 0x38) == 0x10)
            return true;
    return false;
}

static bool is_among(uintptr_t address, const uintptr_t *list, size_t n)
{
    while (n > 0 && list[n - 1] != address)
        n--;
    return n > 0;
}

__attribute__((no_sanitize("address", "thread"))) size_t os_callers(uintptr_t *to, size_t most, uintptr_t first)
{
    const uintptr_t *at = __builtin_frame_address(0);
    const uintptr_t low = 0x10000, room = os_address_limit() - low;
    size_t n = 0, probes = 0;
    bool found = first == 0;
    if (first)
        to[n++] = first;
    for (size_t i = 0; i < STACK_WORDS && n < most && probes < STACK_PROBES; i++, at++) {
        if ((i == 0 || (uintptr_t)at % os_page_size() == 0) && !os_readable(at))
            break;
        if (found && *at - low <= room && !is_among(*at, to, n) && ++probes && follows_call(*at))
            to[n++] = *at;
        found |= *at == first;
    }
    if (n < most)
        to[n] = 0;
    return n;
}

uintptr_t os_interrupted(const void *context) { return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.gregs[REG_RIP]; }

/* The C library's own, at which pthread_self points; without a name that each start would look up. */
static uintptr_t thread_record(void)
{
    uintptr_t record;
    __asm__("mov %%fs:0, %0" : "=r"(record));
    return record;
}

__attribute__((naked)) void os_registers_save(__attribute__((unused)) os_registers *to)
{
    __asm__("mov (%rsp), %rax; mov %rax, (%rdi); lea 8(%rsp), %rax; mov %rax, 8(%rdi); mov %rbp, 16(%rdi); mov %rbx, 24(%rdi);"
            "mov %r12, 32(%rdi); mov %r13, 40(%rdi); mov %r14, 48(%rdi); mov %r15, 56(%rdi); ret");
}
#else
size_t os_callers(uintptr_t *to, size_t most, uintptr_t first)
{
    to[0] = first;
    if (first && most > 1)
        to[1] = 0;
    return first != 0;
}

uintptr_t os_interrupted(__attribute__((unused)) const void *context) { return 0; }
static uintptr_t thread_record(void) { return 0; }
void os_registers_save(os_registers *to) { memset(to, 0, sizeof *to); }
#endif

/* The first thread's ends where the strings are that the kernel left there, any other's at the C library's record of the thread. What
 * lies behind is somebody else's, who may unmap it at any time. */
uintptr_t os_stack_end(uintptr_t from)
{
    uintptr_t first = (uintptr_t)getauxval(AT_RANDOM) & ~(uintptr_t)15, self = thread_record();
    return self - from < first - from ? self : first;
}
