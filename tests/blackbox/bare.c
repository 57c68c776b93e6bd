/* What poolmalloc makes of a next allocator that lacks functions (next_bare.c): sizes beyond the pools, with and without an
 * alignment. Argument: whether that has aligned blocks at all. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>

#include "check.h"

enum { LARGE = 300000 };

static void accept_aligned(void *block, size_t alignment, bool wanted)
{
    CHECKF((block != NULL) == wanted, "alignment %zu: %p, errno %d", alignment, block, errno);
    CHECK(block || errno == ENOMEM);
    CHECK((uintptr_t)block % alignment == 0);
    if (block)
        memset(block, 1, LARGE);
    free(block);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    const int *ready = dlsym(RTLD_DEFAULT, "next_ready_unasked");
    CHECK(ready != NULL && *ready == 1);
    void *block = malloc(33);
    CHECK(malloc_usable_size(block) == 48); /* from a pool */
    free(block);
    bool can = strcmp(argv[1], "aligned") == 0;
    for (size_t alignment = 16; alignment <= 65536; alignment *= 2) {
        bool wanted = can || alignment == 16;
        block = NULL;
        errno = 0;
        accept_aligned(memalign(alignment, LARGE), alignment, wanted);
        accept_aligned(aligned_alloc(alignment, LARGE), alignment, wanted);
        errno = EEXIST;
        int error = posix_memalign(&block, alignment, LARGE);
        CHECKF(error == (wanted ? 0 : ENOMEM) && errno == (wanted ? EEXIST : ENOMEM), "alignment %zu: %d, errno %d", alignment, error, errno);
        CHECK((uintptr_t)block % alignment == 0);
        free(block);
    }
    void *small = memalign(256, 100);
    CHECK(small && (uintptr_t)small % 256 == 0);
    free(small);
    char *zeros = malloc(LARGE); /* leaves something behind that is not zero */
    CHECK(zeros != NULL);
    memset(zeros, 1, LARGE);
    free(zeros);
    CHECK((zeros = calloc(LARGE, 1)) != NULL);
    for (size_t i = 0; i < LARGE; i++)
        CHECK(zeros[i] == 0);
    CHECK(calloc(opaque(SIZE_MAX / 2), 3) == NULL && errno == ENOMEM);
    zeros[99] = 7;
    CHECK((zeros = realloc(zeros, 100)) != NULL && zeros[99] == 7);
    free(zeros);
    return 0;
}
