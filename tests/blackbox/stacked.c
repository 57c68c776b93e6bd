/* With jemalloc as the next allocator: how many bytes reach it for small and for large blocks, by its own counter.
 * Prints both. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>

#include "check.h"

static int (*mallctl)(const char *, void *, size_t *, void *, size_t);

static uint64_t allocated_there(void)
{
    uint64_t bytes = 0;
    size_t length = sizeof bytes;
    CHECK(mallctl("thread.allocated", &bytes, &length, NULL, 0) == 0);
    return bytes;
}

static uint64_t allocate(size_t size, int count)
{
    uint64_t before = allocated_there();
    for (int i = 0; i < count; i++) {
        char *block = malloc(size);
        CHECK(block != NULL);
        memset(block, 1, size);
        CHECK((block = realloc(block, size + size / 2)) != NULL);
        free(block);
    }
    return allocated_there() - before;
}

int main(void)
{
    mallctl = (int (*)(const char *, void *, size_t *, void *, size_t))dlsym(RTLD_DEFAULT, "mallctl");
    CHECK(mallctl != NULL);
    uint64_t small = allocate(1000, 1000), large = allocate(100000, 100);
    printf("%lu %lu\n", (unsigned long)small, (unsigned long)large);
    return 0;
}
