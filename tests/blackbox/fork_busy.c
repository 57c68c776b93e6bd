/* A thread is on slow paths nearly all of the time, with memory of its own; in a child it is gone. All of that memory is the child's
 * to free: it can be trimmed away, in each child. Argument: children. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poolmalloc.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "check.h"
#include "process.h"
#include "threads.h"

enum { KEPT = 100000, SIZE = 256, BUSY = 3000, BUSY_SIZE = 1000 };

static void *kept[KEPT];
static atomic_bool made, stop;
static size_t (*trim)(void);
static int (*stats_get)(pm_stats *);

static void *work(void *unused)
{
    void *blocks[BUSY];
    for (int i = 0; i < KEPT; i++) {
        CHECK((kept[i] = malloc(SIZE)) != NULL);
        memset(kept[i], 1, SIZE);
    }
    atomic_store(&made, true);
    while (!atomic_load(&stop)) {
        for (int i = 0; i < BUSY; i++)
            blocks[i] = malloc(BUSY_SIZE);
        for (int i = 0; i < BUSY; i++)
            free(blocks[i]);
    }
    return unused;
}

static size_t resident_mib(void)
{
    static pm_stats stats;
    stats.struct_size = sizeof stats;
    CHECK(stats_get(&stats) == 0);
    return stats.resident_bytes >> 20;
}

static void child_run(void)
{
    alarm(HANG_SECONDS);
    for (int i = 0; i < KEPT; i++)
        free(kept[i]);
    trim();
    CHECKF(resident_mib() < 20, "%zu MiB stay after all was freed", resident_mib());
    pid_t grandchild = fork(); /* which finds nobody to wait for */
    if (grandchild == 0)
        _exit(0);
    CHECK(waitpid(grandchild, NULL, 0) == grandchild);
    _exit(0);
}

int main(int argc, char **argv)
{
    *(void **)&trim = dlsym(RTLD_DEFAULT, "pm_trim");
    *(void **)&stats_get = dlsym(RTLD_DEFAULT, "pm_stats_get");
    CHECK(trim && stats_get);
    pthread_t worker = thread_start(work, NULL);
    while (!atomic_load(&made))
        sleep_ms(1);
    for (long i = argument(argc, argv, 1, 40); i > 0; i--) {
        sleep_ms(3);
        child_succeeds(child_run);
    }
    atomic_store(&stop, true);
    thread_join(worker);
    return 0;
}
