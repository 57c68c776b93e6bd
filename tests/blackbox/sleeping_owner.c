/* An owner that sleeps may not hold memory for ever: main makes four million blocks of 64 bytes, a worker frees
 * them all and trims. What remains is at most 32 MiB, and the second such round needs no more than the first. */
#include <malloc.h>

#include "check.h"
#include "process.h"
#include "threads.h"

enum { BLOCKS = 4000000, SIZE = 64, LEFT_KIB = 32 * 1024 };

static void *blocks[BLOCKS];

static long allocate_all(void)
{
    for (int i = 0; i < BLOCKS; i++) {
        CHECK((blocks[i] = malloc(SIZE)) != NULL);
        memset(blocks[i], 1, SIZE);
    }
    return rss_kib();
}

static void *free_all_and_trim(void *unused)
{
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    malloc_trim(0);
    return unused;
}

int main(void)
{
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = &blocks[i]; /* the array itself belongs to the baseline */
    long baseline = rss_kib();
    long first = allocate_all();
    thread_run(free_all_and_trim, NULL);
    long left = rss_kib();
    long second = allocate_all();
    printf("baseline %ld, first %ld, after trim %ld, second %ld KiB\n", baseline, first, left, second);
    CHECKF(left - baseline <= LEFT_KIB, "after the trim %ld KiB remain", left - baseline);
    CHECKF((second - baseline) * 10 <= (first - baseline) * 11, "the second round takes %ld KiB, the first %ld", second - baseline, first - baseline);
    return 0;
}
