/* A thread that only ever frees holds nothing: main makes blocks round after round, one long-lived thread frees
 * them, and the process stays as large as one round. */
#include <stdint.h>

#include "check.h"
#include "process.h"
#include "threads.h"

enum { BLOCKS = 200000, ROUNDS = 20 };

static char *blocks[BLOCKS];
static pthread_barrier_t filled, emptied;

static void *free_rounds(void *unused)
{
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&filled);
        for (int i = 0; i < BLOCKS; i++)
            free(blocks[round % 2 ? i : BLOCKS - 1 - i]);
        pthread_barrier_wait(&emptied);
    }
    return unused;
}

static void fill(int round)
{
    for (int i = 0; i < BLOCKS; i++) {
        size_t size = 32 + (size_t)((i * 31 + round) % 13) * 40;
        CHECK((blocks[i] = malloc(size)) != NULL);
        memset(blocks[i], 1, size);
    }
}

int main(void)
{
    pthread_barrier_init(&filled, NULL, 2);
    pthread_barrier_init(&emptied, NULL, 2);
    long baseline = rss_kib(), first = 0;
    pthread_t thread = thread_start(free_rounds, NULL);
    for (int round = 0; round < ROUNDS; round++) {
        fill(round);
        long grown = rss_kib() - baseline;
        first = round == 2 ? grown : first;
        CHECKF(round < 3 || grown <= first + first / 5, "round %d takes %ld KiB, an early one %ld", round, grown, first);
        pthread_barrier_wait(&filled);
        pthread_barrier_wait(&emptied);
    }
    thread_join(thread);
    return 0;
}
