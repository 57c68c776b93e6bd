/* Slabs of a thread that sleeps, to which the last blocks come from two sides so that nobody notices: another thread gives back some
 * without a word, since others are out still; then the owner gives back those, and has no reason to look. A trim finds them. */
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "check.h"
#include "process.h"
#include "threads.h"

enum { BLOCKS = 400000, SIZE = 64, STRIDE = 1000, LEFT_PERCENT = 40 };

static void *blocks[BLOCKS];
static pthread_barrier_t turn;

static void free_each(int first, int step)
{
    for (int i = first; i < BLOCKS; i += step) {
        free(blocks[i]);
        blocks[i] = NULL;
    }
}

static void *own(void *unused)
{
    for (int i = 0; i < BLOCKS; i++) {
        CHECK((blocks[i] = malloc(SIZE)) != NULL);
        memset(blocks[i], 1, SIZE);
    }
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn);
    free_each(1, 4); /* it looks at each slab */
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn);
    free_each(3, 4);
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn);
    return unused;
}

int main(void)
{
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = &blocks[i]; /* the array itself belongs to the baseline */
    long baseline = rss_kib();
    pthread_barrier_init(&turn, NULL, 2);
    pthread_t owner = thread_start(own, NULL);
    pthread_barrier_wait(&turn);
    long most = rss_kib() - baseline;
    free_each(0, STRIDE); /* each slab's first: told of */
    malloc_trim(0);
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn);
    free_each(0, 2); /* not told of: as many are out still */
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn);
    malloc_trim(0);
    long left = rss_kib() - baseline;
    printf("most %ld, after the trim %ld KiB\n", most, left);
    CHECKF(left * 100 <= most * LEFT_PERCENT, "%ld of %ld KiB stay", left, most);
    pthread_barrier_wait(&turn);
    thread_join(owner);
    return 0;
}
