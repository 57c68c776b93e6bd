/* Programs under resource limits: whatever cannot be had is NULL and ENOMEM, never a crash, and what is freed can
 * be had again. Argument: as | data | none (limits set by who starts us) | mlock (as an unprivileged user). */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "check.h"
#include "process.h"
#include "threads.h"

enum { MIB = 1 << 20, LIMIT = 256 * MIB, USED_AT_LEAST = 128 * MIB, NOBODY = 65534 };

typedef struct Link { struct Link *next; } Link;

/* Takes blocks of one size until there is none, or `enough` bytes; counts the bytes and gives all back. */
static size_t take_all(size_t size, size_t enough)
{
    Link *chain = NULL;
    size_t taken = 0;
    errno = 0;
    while (taken < enough) {
        Link *link = malloc(size);
        if (link == NULL)
            break;
        memset(link, 1, size);
        link->next = chain;
        chain = link;
        taken += size;
    }
    CHECKF(taken >= enough || errno == ENOMEM, "malloc(%zu) failed with errno %d", size, errno);
    while (chain != NULL) {
        Link *next = chain->next;
        free(chain);
        chain = next;
    }
    return taken;
}

static void limit_set(int resource, rlim_t bytes)
{
    struct rlimit limit = {bytes, bytes};
    CHECK(setrlimit(resource, &limit) == 0);
}

/* What small blocks had taken, a large one finds: in a process of its own, since two allocators that took turns at the limit may each
 * hold a part that the other one lacks. */
static void give_way(int way)
{
    static const size_t small[] = {64, 1000, 20000};
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        take_all(small[way % 3], 2ul * LIMIT);
        void *block = way == 0   ? malloc(USED_AT_LEAST)
                      : way == 1 ? calloc(1, USED_AT_LEAST)
                      : way == 2 ? memalign(4096, USED_AT_LEAST)
                      : way == 3 ? realloc(malloc(100000), USED_AT_LEAST)
                                 : NULL;
        CHECKF(block != NULL || way == 4, "way %d: no block of %d MiB after all was freed", way, USED_AT_LEAST / MIB);
        free(block);
        CHECK(take_all(way == 4 ? 200000 : 64, 2ul * LIMIT) >= USED_AT_LEAST);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* Twice each: the second time from memory that came back. Each size must find the room that the one before gave up. */
static void exhaust(void)
{
    static const size_t sizes[] = {200000, 64, 1024, 20000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int again = 0; again < 2; again++) {
            size_t taken = take_all(sizes[i], 2ul * LIMIT);
            CHECKF(taken < 2ul * LIMIT, "the limit does not hold");
            CHECKF(taken >= USED_AT_LEAST, "blocks of %zu: only %zu MiB of %d could be used", sizes[i], taken / MIB, LIMIT / MIB);
        }
}

static pthread_barrier_t exhausted;

/* Made in time: a stack may be more than what is left afterwards. */
static void *exhaust_in_thread(void *unused)
{
    pthread_barrier_wait(&exhausted);
    take_all(512, 2ul * LIMIT);
    return unused;
}

/* An ordinary program with locked memory: its whole address space counts against the limit. */
static void run_locked(void)
{
    limit_set(RLIMIT_MEMLOCK, 8 * MIB);
    if (geteuid() == 0 && setuid(NOBODY) != 0)
        exit(EXIT_SKIPPED);
    free(malloc(100));
    CHECKF(mlockall(MCL_CURRENT | MCL_FUTURE) == 0,
           "mlockall under RLIMIT_MEMLOCK of 8 MiB: %s (VmSize %ld KiB)", strerror(errno), status_kib("VmSize:"));
    size_t taken = take_all(64, 64 * MIB);
    CHECKF(taken >= MIB, "only %zu KiB of 8 MiB could be had", taken / 1024);
    CHECK(take_all(1000, 64 * MIB) > 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    const char *which = argv[1];
    if (strcmp(which, "mlock") == 0) {
        run_locked();
        return 0;
    }
    if (strcmp(which, "none") == 0) {
        CHECK(take_all(64, 16 * MIB) >= 8 * MIB); /* in 64 MiB of address space */
        return 0;
    }
    limit_set(strcmp(which, "as") == 0 ? RLIMIT_AS : RLIMIT_DATA, LIMIT);
    for (int way = 0; way < 5; way++)
        give_way(way);
    pthread_barrier_init(&exhausted, NULL, 2);
    pthread_t thread = thread_start(exhaust_in_thread, NULL);
    exhaust();
    pthread_barrier_wait(&exhausted);
    thread_join(thread);
    return 0;
}
