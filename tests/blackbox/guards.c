/* The hardened library: pages that nobody may touch end each part of the pools' memory, wherever it ends just then: as the program grows,
 * in the child of a fork, with a limit of address space, with all memory locked. A write there is told, in POOLMALLOC_STATS_FILE. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { MAPPINGS = 32768 };

static struct mapping {
    uintptr_t from, to;
    bool closed;
} maps[MAPPINGS];
static size_t count;

static void maps_read(void)
{
    char line[512], rights[5];
    FILE *file = fopen("/proc/self/maps", "re");
    CHECK(file != NULL);
    for (count = 0; count < MAPPINGS && fgets(line, sizeof line, file) != NULL; count++) {
        CHECK(sscanf(line, "%lx-%lx %4s", &maps[count].from, &maps[count].to, rights) == 3);
        maps[count].closed = memcmp(rights, "---p", 4) == 0;
    }
    fclose(file);
}

static size_t mapping_of(const void *p)
{
    for (size_t i = 0; i < count; i++)
        if ((uintptr_t)p - maps[i].from < maps[i].to - maps[i].from)
            return i;
    CHECK(!"it is mapped");
    return 0;
}

/* How many mappings lie side by side from i on, in steps of 1 or -1; the last one is a guard, of one page. */
static size_t guarded_end(size_t i, int step)
{
    size_t n = 1;
    for (;; i += (size_t)step, n++) {
        const struct mapping *m = &maps[i], *next = m + step;
        if (i + (size_t)step >= count || (step > 0 ? m->to != next->from : next->to != m->from)) {
            CHECKF(m->closed && m->to - m->from == (uintptr_t)getpagesize(), "%lx-%lx is no guard", m->from, m->to);
            return n;
        }
    }
}

static bool is_control(const struct mapping *m)
{
    return m->from % (2 << 20) == 0 && !m->closed && memcmp((const void *)m->from, "poolmalloc-live", 16) == 0;
}

/* Below a block: other slabs, guards, the free bits, a guard. Above: to the region's end. Beside the control page: the first heaps, a guard,
 * records, a guard. Below it: other heaps, and a guard. */
static void guards_check(const void *block, bool heaps)
{
    maps_read();
    CHECK(guarded_end(mapping_of(block), 1) >= 2 && guarded_end(mapping_of(block), -1) >= 4);
    size_t control = 0;
    while (control < count && (maps[control].closed || maps[control].to - maps[control].from < 65536 || !is_control(&maps[control])))
        control++;
    CHECK(control < count);
    CHECK(maps[control + 1].closed && guarded_end(control, 1) >= 4);
    if (heaps)
        CHECK(control >= 2 && guarded_end(control - 2, 1) >= 2);
    CHECK(control == 0 || maps[control - 1].to != maps[control].from);
}

static void *small;

static void touch(void)
{
    size_t i = mapping_of(small);
    while (maps[i].to == maps[i + 1].from)
        i++;
    *(volatile char *)maps[i].from = 1;
    _exit(0);
}

static void touch_is_told(void)
{
    char report[1024] = "";
    int status;
    pid_t child = fork();
    if (child == 0)
        touch();
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    FILE *file = fopen(getenv("POOLMALLOC_STATS_FILE"), "re");
    CHECK(file != NULL && fgets(report, sizeof report, file) != NULL);
    CHECKF(strstr(report, ": used at the end of the pools' memory") != NULL, "told is %s", report);
    fclose(file);
    unlink(getenv("POOLMALLOC_STATS_FILE"));
}

/* Of large blocks that stay closed those are used again whose pages are still there. */
static void peak_costs_no_faults_later(void)
{
    enum { PEAK = 400, PAIRS = 1000, BYTES = 100000 };
    static void *blocks[PEAK];
    struct rusage before, after;
    for (int i = 0; i < PEAK; i++)
        memset(blocks[i] = malloc(BYTES), 1, BYTES);
    for (int i = 0; i < PEAK; i++)
        free(blocks[i]);
    getrusage(RUSAGE_SELF, &before);
    for (int i = 0; i < PAIRS; i++) {
        void *p = malloc(BYTES);
        memset(p, 1, BYTES);
        free(p);
    }
    getrusage(RUSAGE_SELF, &after);
    CHECKF(after.ru_minflt - before.ru_minflt < PAIRS, "%ld page faults", after.ru_minflt - before.ru_minflt);
}

static void *thread(void *barrier)
{
    free(malloc(100));
    pthread_barrier_wait(barrier);
    pthread_barrier_wait(barrier);
    return NULL;
}

static void grow(size_t bytes)
{
    for (size_t n = 0; n < bytes; n += 8000)
        CHECK(malloc(8000) != NULL);
}

int main(void)
{
    enum { THREADS = 40 };
    pthread_t threads[THREADS];
    pthread_barrier_t barrier;
    int status;
    small = malloc(100);
    CHECK(small != NULL);
    guards_check(small, false);
    touch_is_told();
    peak_costs_no_faults_later();
    for (int i = 0; i < 5; i++) {
        grow(3 << 20);
        guards_check(small, false);
    }
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, thread, &barrier) == 0);
    pthread_barrier_wait(&barrier);
    guards_check(small, true);
    pid_t child = fork();
    if (child == 0) {
        guards_check(small, true);
        grow(20 << 20);
        guards_check(small, true);
        struct rlimit most = {(rlim_t)2 << 30, (rlim_t)2 << 30};
        CHECK(setrlimit(RLIMIT_AS, &most) == 0);
        void *reserve = malloc(1 << 20);
        while (malloc(1000)) /* until there is none */
            ;
        free(reserve); /* for reading the mappings */
        guards_check(small, true);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    if (mlockall(MCL_CURRENT | MCL_FUTURE) == 0) {
        grow(3 << 20);
        guards_check(small, true);
    }
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    return 0;
}
