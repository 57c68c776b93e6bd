/* fork, while another thread flushes all files and others allocate with a FILE locked: fork wants the lock of the list of files, whose
 * holder wants a FILE, whose holder wants memory. Whatever waits for whom, memory waits for nobody. What is forwarded meanwhile does not
 * count as a want of memory. Argument: forks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poolmalloc.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "check.h"
#include "process.h"
#include "threads.h"

enum { WRITERS = 2, BLOCKS = 500, SIZE = 3000 };

static atomic_bool stop;

static void *flush_all(void *unused)
{
    while (!atomic_load(&stop)) {
        fflush(NULL);
        sleep_ms(0);
    }
    return unused;
}

static void *allocate_with_file(void *unused)
{
    void *blocks[BLOCKS];
    FILE *file = fopen("/dev/null", "w");
    CHECK(file != NULL);
    while (!atomic_load(&stop)) {
        flockfile(file);
        for (int i = 0; i < BLOCKS; i++)
            CHECK((blocks[i] = malloc(SIZE)) != NULL);
        funlockfile(file);
        for (int i = 0; i < BLOCKS; i++)
            free(blocks[i]);
    }
    fclose(file);
    return unused;
}

static void child_run(void)
{
    alarm(HANG_SECONDS);
    FILE *file = fopen("/dev/null", "w");
    _exit(file == NULL || fputs("child", file) < 0 || fclose(file) != 0);
}

static void memory_was_there(void)
{
    static pm_stats stats = {.struct_size = sizeof stats};
    int (*stats_get)(pm_stats *);
    *(void **)&stats_get = dlsym(RTLD_DEFAULT, "pm_stats_get");
    CHECK(stats_get != NULL && stats_get(&stats) == 0);
    printf("%zu calls were forwarded\n", stats.forwarded_calls);
    CHECKF(stats.forwarded_small_calls == 0, "%zu of them for want of memory", stats.forwarded_small_calls);
}

int main(int argc, char **argv)
{
    pthread_t threads[WRITERS + 1];
    alarm(HANG_SECONDS);
    threads[0] = thread_start(flush_all, NULL);
    for (int i = 1; i <= WRITERS; i++)
        threads[i] = thread_start(allocate_with_file, NULL);
    for (long i = argument(argc, argv, 1, 200); i > 0; i--)
        child_succeeds(child_run);
    atomic_store(&stop, true);
    for (int i = 0; i <= WRITERS; i++)
        thread_join(threads[i]);
    memory_was_there();
    return 0;
}
