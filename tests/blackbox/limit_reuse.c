/* At a hard limit, memory that was freed serves other sizes and other threads. Run with OVERFLOW=fail: an allocation
 * that fails although three quarters of the memory is free is the error. */
#include <errno.h>

#include "check.h"
#include "threads.h"

enum { BYTES = 12 << 20, MOST = BYTES / 48 };

static void *blocks[MOST];
static size_t block_size;

static void *take(void *unused)
{
    for (size_t i = 0; i < BYTES / block_size; i++) {
        blocks[i] = malloc(block_size);
        CHECKF(blocks[i] != NULL, "block %zu of %zu bytes: none left (errno %d)", i, block_size, errno);
        memset(blocks[i], 1, block_size);
    }
    return unused;
}

static void *give_back(void *unused)
{
    for (size_t i = 0; i < BYTES / block_size; i++)
        free(blocks[i]);
    return unused;
}

int main(void)
{
    static const size_t sizes[] = {64, 2048, 48, 30000, 640, 16384, 64};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        block_size = sizes[i];
        take(NULL);
        thread_run(give_back, NULL); /* freed by a thread that then is gone */
        thread_run(take, NULL);      /* taken by one, freed by main */
        give_back(NULL);
    }
    CHECK(malloc(opaque(20 << 20)) != NULL); /* beyond the pools the limit does not count */
    return 0;
}
