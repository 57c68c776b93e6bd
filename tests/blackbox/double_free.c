/* Frees a block a second time when nobody owns its slab any more: its thread is gone and the memory given back.
 * The script that runs this expects one line on stderr and SIGABRT. */
#include <malloc.h>
#include <stdint.h>

#include "check.h"
#include "threads.h"

enum { BLOCKS = 60000, SIZE = 208 };

static uintptr_t stale;

static void *take_and_free(void *unused)
{
    static void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        CHECK((blocks[i] = malloc(SIZE)) != NULL);
    stale = (uintptr_t)blocks[BLOCKS / 2];
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    return unused;
}

int main(void)
{
    thread_run(take_and_free, NULL);
    malloc_trim(0);
    free((void *)stale);
    return 0;
}
