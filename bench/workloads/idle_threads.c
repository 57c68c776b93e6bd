/* idle_threads: what a thread that has allocated and now sleeps costs in resident memory.
 * few: ten blocks of each of five sizes (16 to 1024 B). every: as many blocks of every size class up
 * to 32 KiB as fill a cache of 12 KiB. All are freed again before the thread sleeps. The resident
 * memory of the same threads before they allocated is taken off.
 * Idea: thread-per-connection servers. Not part of the geometric means; it measures a goal. */
#include "common.h"

#include <pthread.h>

enum { CACHE = 12 << 10 };

static pthread_barrier_t turn; /* workers and the main worker meet before and after each step */
static uint64_t before_kib, after_kib;

static void blocks_cycle(size_t size, unsigned count)
{
    void *block[4096];
    for (unsigned i = 0; i < count; i++)
        block[i] = block_new(size);
    for (unsigned i = 0; i < count; i++)
        free(block[i]);
}

static void caches_fill(void)
{
    if (variant_is("few")) {
        static const size_t sizes[] = {16, 64, 128, 256, 1024};
        for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
            blocks_cycle(sizes[i], 10);
        return;
    }
    for (size_t octave = 64; octave <= 32768; octave *= 2)
        for (size_t size = octave / 2 + octave / 8; size <= octave; size += octave / 8)
            blocks_cycle(size, (unsigned)(CACHE / size));
}

static void *sleeper_run(void *unused)
{
    char room[64 << 10]; /* the stack that caches_fill() will use is not the allocator's */
    memset(room, 1, sizeof room);
    __asm__ volatile("" : : "r"(room) : "memory");
    for (unsigned step = 0; step < 4; step++) {
        pthread_barrier_wait(&turn);
        if (step == 1)
            caches_fill();
    }
    return unused;
}

static void run(worker *w)
{
    pthread_t thread[THREADS_MAX];
    unsigned count = (unsigned)w->quota;
    if (count > THREADS_MAX)
        bench_fail("too many operations: one is one thread");
    pthread_barrier_init(&turn, NULL, count + 1);
    for (unsigned i = 0; i < count; i++)
        if (pthread_create(&thread[i], NULL, sleeper_run, NULL))
            bench_fail("cannot create a thread");
    pthread_barrier_wait(&turn);
    before_kib = rss_kib();
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn);
    after_kib = rss_kib();
    pthread_barrier_wait(&turn);
    for (unsigned i = 0; i < count; i++)
        pthread_join(thread[i], NULL);
    w->done = count;
}

static void extra(FILE *out)
{
    fprintf(out, "\"idle_thread_kib\": %.2f, ", ((double)after_kib - (double)before_kib) / (double)options.operations);
}

static const char *const variants[] = {"few", "every", NULL};
const workload bench_workload = {
    .name = "idle_threads", .purpose = "Resident memory of a sleeping thread; --operations is their number.",
    .run = run, .extra = extra, .variants = variants, .defaults = {.threads = 1, .operations = 64}};
