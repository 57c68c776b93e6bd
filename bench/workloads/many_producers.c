/* many_producers: every thread allocates 2000 blocks; then one of them frees all, a block of each thread in turn: neighbours in the
 * order of frees never belong together. An operation is one block; free_ns is the CPU time of one free of that thread.
 * Size: 64 B unless told. Never reads what it stored.
 * Idea: a collector thread that drops what many workers made, as they made it. */
#include "common.h"

#include <pthread.h>
#include <time.h>

enum { ROUND = 2000 };

static void *blocks[THREADS_MAX][ROUND];
static uint64_t granted;          /* to each thread in this round: set by the one that frees, between two barriers */
static uint64_t frees, frees_ns;
static pthread_barrier_t barrier;
static pthread_once_t barrier_once = PTHREAD_ONCE_INIT;

static void barrier_init(void) { pthread_barrier_init(&barrier, NULL, options.threads); }

static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void all_free(void)
{
    uint64_t began = cpu_ns();
    for (uint64_t i = 0; i < granted; i++)
        for (unsigned t = 0; t < options.threads; t++)
            free(blocks[t][i]);
    frees += granted * options.threads;
    frees_ns += cpu_ns() - began;
}

/* True: the round is to be done. */
static bool round_begin(const worker *w)
{
    if (w->id == 0)
        granted = worker_grant(w, ROUND);
    pthread_barrier_wait(&barrier);
    return granted > 0;
}

static void run(worker *w)
{
    pthread_once(&barrier_once, barrier_init);
    while (round_begin(w)) {
        for (uint64_t i = 0; i < granted; i++)
            blocks[w->id][i] = block_new(options.size);
        w->done += granted;
        pthread_barrier_wait(&barrier);
        if (w->id == 0)
            all_free();
    }
}

static void extra(FILE *out)
{
    if (frees)
        fprintf(out, "\"free_ns\": %.2f, ", (double)frees_ns / (double)frees);
}

const workload bench_workload = {
    .name = "many_producers", .purpose = "Many threads allocate, one frees all, a block of each in turn.",
    .run = run, .extra = extra, .allocations_per_operation = 1,
    .defaults = {.threads = 8, .operations = 3000000, .size = 64}};
