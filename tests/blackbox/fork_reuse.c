/* The memory of threads that a fork left behind is the child's to use: it frees what they allocated, allocates
 * as much again, and does not grow. */
#define _GNU_SOURCE
#include <malloc.h>

#include "check.h"
#include "process.h"
#include "threads.h"

enum { THREADS = 8, BLOCKS = 50000, SIZE = 160 };

static char *blocks[THREADS][BLOCKS];
static pthread_barrier_t ready;

static void blocks_make(char **row)
{
    for (int i = 0; i < BLOCKS; i++) {
        CHECK((row[i] = malloc(SIZE)) != NULL);
        memset(row[i], 1, SIZE);
    }
}

static void *allocate_and_wait(void *row)
{
    blocks_make(row);
    pthread_barrier_wait(&ready);
    pause();
    return NULL;
}

static void child_run(void)
{
    alarm(HANG_SECONDS);
    long before = rss_kib();
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < THREADS; i++) {
            for (int j = 0; j < BLOCKS; j++)
                free(blocks[i][j]);
            blocks_make(blocks[i]);
        }
    long growth = rss_kib() - before;
    CHECKF(growth < before / 4, "the child grew by %ld KiB over %ld", growth, before);
    _exit(0);
}

int main(void)
{
    pthread_barrier_init(&ready, NULL, THREADS + 1);
    for (int i = 0; i < THREADS; i++)
        thread_start(allocate_and_wait, blocks[i]);
    pthread_barrier_wait(&ready);
    child_succeeds(child_run);
    _exit(0); /* the threads still pause */
}
