/* Takes blocks and says how it went; for scripts that watch limits, statistics and faults.
 * Arguments: SIZE COUNT [keep|free|thread-free|late]. Prints "served=N errno=E faults=F locked=KIB".
 * `late`: a second half is taken by exit handlers, after main. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/resource.h>

#include "check.h"
#include "process.h"
#include "threads.h"

enum { MOST = 4000000, WARM = 100 };

static void *blocks[MOST];
static long size, count, served;

static long faults(void)
{
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return usage.ru_minflt + usage.ru_majflt;
}

static void take(long how_many)
{
    for (long i = 0; i < how_many; i++) {
        char *block = malloc((size_t)size);
        if (block == NULL)
            return;
        memset(block, 1, (size_t)size);
        blocks[served++] = block;
    }
}

static void *give_back(void *unused)
{
    while (served > 0)
        free(blocks[--served]);
    return unused;
}

/* The first calls touch the allocator's own code and tables; the faults of that are not the blocks'. */
static void warm_up(void)
{
    take(WARM);
    give_back(NULL);
}

static void take_more(void)
{
    take(count);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3);
    size = argument(argc, argv, 1, 0);
    count = argument(argc, argv, 2, 0);
    const char *then = argc > 3 ? argv[3] : "keep";
    CHECK(count <= MOST / 2);
    memset(blocks, 0xff, sizeof blocks); /* the array's own faults do not count */
    warm_up();
    long before = faults();
    errno = 0;
    take(count);
    int error = errno;
    char line[200]; /* stdio would allocate: the counts of a script must be exact */
    int length = snprintf(line, sizeof line, "served=%ld errno=%d faults=%ld locked=%ld\n", served, error, faults() - before, status_kib("VmLck:"));
    CHECK(write(STDOUT_FILENO, line, (size_t)length) == length);
    if (strcmp(then, "free") == 0)
        give_back(NULL);
    if (strcmp(then, "thread-free") == 0)
        thread_run(give_back, NULL);
    if (strcmp(then, "late") == 0)
        CHECK(atexit(take_more) == 0);
    return 0;
}
