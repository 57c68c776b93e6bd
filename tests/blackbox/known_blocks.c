/* Holds known numbers of blocks of known sizes, for readers of statistics from inside and outside.
 *   quiet         then waits for its stdin to end
 *   threads N     N threads hold blocks too, and free and allocate again without pause until stdin ends
 * Prints what pm_stats_get says of each size as "size=used", on one line. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poolmalloc.h>

#include "check.h"
#include "threads.h"

static const struct {
    size_t size;
    long count; /* kept */
    long given; /* allocated besides, and freed: by this thread, and by another one */
} known[] = {{1700, 777, 5}, {5000, 64, 1}, {32768, 9, 0}, {600, 12345, 100}};
enum { KNOWN = sizeof known / sizeof *known, MOST = 13000, HELD = 2000, BURST = 400, BUSY_SIZE = 300, WORKERS_MOST = 16 };

void *kept[KNOWN][MOST], *given[MOST]; /* seen by a debugger, too */
static volatile int stop;
static pthread_barrier_t all_taken;

static void take(void **blocks, size_t size, long count)
{
    for (long i = 0; i < count; i++) {
        CHECK((blocks[i] = malloc(size)) != NULL);
        memset(blocks[i], 1, size);
    }
}

static void *give_back(void *unused)
{
    for (void **p = given; *p; p++)
        free(*p);
    return unused;
}

/* What this thread frees stays in its bins; what another one frees is on its way home when that one is gone. */
static void take_known(void)
{
    for (int i = 0; i < KNOWN; i++) {
        take(kept[i], known[i].size, known[i].count);
        for (int round = 0; round < 2; round++) {
            take(given, known[i].size, known[i].given);
            given[known[i].given] = NULL;
            if (round == 0)
                give_back(NULL);
            else
                thread_run(give_back, NULL);
        }
    }
}

/* Up to BURST blocks less at times: bins fill and empty, and slow paths come all the time. */
static void *churn(void *unused)
{
    void *blocks[HELD];
    unsigned random = 1;
    take(blocks, BUSY_SIZE, HELD);
    pthread_barrier_wait(&all_taken);
    while (!stop) {
        random = random * 1103515245 + 12345;
        unsigned first = random / 65536 % (HELD - BURST), burst = random / 256 % BURST;
        for (unsigned i = first; i < first + burst; i++)
            free(blocks[i]);
        for (unsigned i = first; i < first + burst; i++)
            CHECK((blocks[i] = malloc(BUSY_SIZE)) != NULL);
    }
    for (int i = 0; i < HELD; i++)
        free(blocks[i]);
    return unused;
}

static size_t used_of(const pm_stats *s, size_t size)
{
    size_t row = 0;
    while (row < s->pools && s->row[row].block_size < size)
        row++;
    return row < s->pools ? s->row[row].used : 0;
}

static void say(void)
{
    int (*get)(pm_stats *) = (int (*)(pm_stats *))(uintptr_t)dlsym(RTLD_DEFAULT, "pm_stats_get");
    static pm_stats s = {.struct_size = sizeof s};
    static char line[300];
    int length = 0;
    CHECK(get != NULL && get(&s) == 0);
    for (int i = 0; i < KNOWN; i++)
        length += snprintf(line + length, sizeof line - (size_t)length, "%zu=%zu ", known[i].size, used_of(&s, known[i].size));
    line[length - 1] = '\n';
    CHECK(write(STDOUT_FILENO, line, (size_t)length) == length);
}

int main(int argc, char **argv)
{
    pthread_t threads[WORKERS_MOST];
    long workers = argument(argc, argv, 2, 0);
    char end;
    CHECK(workers <= WORKERS_MOST);
    take_known();
    pthread_barrier_init(&all_taken, NULL, (unsigned)workers + 1);
    for (long i = 0; i < workers; i++)
        threads[i] = thread_start(churn, NULL);
    pthread_barrier_wait(&all_taken);
    say();
    while (read(STDIN_FILENO, &end, 1) > 0)
        ;
    stop = 1;
    for (long i = 0; i < workers; i++)
        thread_join(threads[i]);
    return 0;
}
