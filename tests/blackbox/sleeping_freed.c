/* Threads that sleep, and whose blocks others free: each has a few at hand, in many slabs. Who works meanwhile gives the pages between back. */
#include <stdlib.h>

#include "check.h"
#include "pattern.h"
#include "process.h"
#include "threads.h"

enum { THREADS = 20, BLOCKS = 500, ROUNDS = 20, LEAST = 1000, RANGE = 7000, TURNS = 20000, SMALL = 4000 };

static void *blocks[THREADS][BLOCKS];
static pthread_barrier_t turn;

static void *make(void *mine)
{
    void **block = mine;
    Random random = {(uint64_t)(uintptr_t)mine};
    for (int i = 0; i < ROUNDS * BLOCKS; i++) {
        size_t k = random_below(&random, BLOCKS), size = LEAST + random_below(&random, RANGE);
        free(block[k]);
        CHECK((block[k] = malloc(size)) != NULL);
        memset(block[k], 1, size);
    }
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn);
    return NULL;
}

static void work(void)
{
    static void *small[SMALL];
    for (int i = 0; i < SMALL; i++)
        CHECK((small[i] = malloc(64)) != NULL);
    for (int i = 0; i < SMALL; i++)
        free(small[i]);
    usleep(1000);
}

int main(void)
{
    pthread_t threads[THREADS];
    long before = rss_kib(), left = 0;
    pthread_barrier_init(&turn, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        threads[i] = thread_start(make, blocks[i]);
    pthread_barrier_wait(&turn);
    long most = rss_kib() - before;
    for (int i = 0; i < THREADS * BLOCKS; i++)
        free(blocks[i / BLOCKS][i % BLOCKS]);
    for (int i = 0; i < TURNS && (left = rss_kib() - before) * 3 > most; i++)
        work();
    printf("most %ld, left %ld KiB\n", most, left);
    CHECKF(left * 3 <= most, "%ld of %ld KiB stay", left, most);
    pthread_barrier_wait(&turn);
    for (int i = 0; i < THREADS; i++)
        thread_join(threads[i]);
    return 0;
}
