/* Every size, every alignment, every function: alignment, usable size, contents, no overlap. */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdint.h>

#include "check.h"
#include "pattern.h"

enum { LARGEST = 70000, WINDOW = 1024, LARGEST_ALIGNMENT = 65536 };

typedef struct {
    unsigned char *bytes;
    size_t requested, usable;
} Block;

/* The blocks alive together: what is checked of each is checked while its neighbours are in use. */
static Block window[WINDOW];
static size_t window_at;

static unsigned char own_byte(const Block *block)
{
    return (unsigned char)(1 + ((uintptr_t)block->bytes / 16 * 31 + block->requested) % 255);
}

static void block_release(Block *block)
{
    if (block->bytes == NULL)
        return;
    CHECKF(malloc_usable_size(block->bytes) == block->usable, "usable size of %zu changed", block->requested);
    const unsigned char *bytes = block->bytes;
    CHECKF(block->usable == 0 || (bytes[0] == own_byte(block) && memcmp(bytes, bytes + 1, block->usable - 1) == 0),
           "contents of a block of %zu were overwritten", block->requested);
    free(block->bytes);
    block->bytes = NULL;
}

/* Checks a fresh block, fills all that is usable, and lets the oldest of the window go. */
static void block_accept(void *bytes, size_t requested, size_t alignment, const char *function)
{
    CHECKF(bytes != NULL, "%s(%zu) gave NULL", function, requested);
    CHECKF((uintptr_t)bytes % alignment == 0, "%s(%zu) at %p is not aligned to %zu", function, requested, bytes, alignment);
    size_t usable = malloc_usable_size(bytes);
    CHECKF(usable >= requested, "%s(%zu) has %zu usable bytes", function, requested, usable);
    Block *block = &window[window_at++ % WINDOW];
    block_release(block);
    *block = (Block){bytes, requested, usable};
    memset(bytes, own_byte(block), usable);
}

static int by_address(const void *left, const void *right)
{
    const Block *a = left, *b = right;
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

/* Usable ranges of blocks alive together are disjoint. */
static void window_check_and_empty(void)
{
    qsort(window, WINDOW, sizeof *window, by_address);
    for (int i = 1; i < WINDOW; i++)
        CHECKF(window[i - 1].bytes == NULL || window[i - 1].bytes + window[i - 1].usable <= window[i].bytes,
               "blocks of %zu and %zu bytes overlap", window[i - 1].requested, window[i].requested);
    for (int i = 0; i < WINDOW; i++)
        block_release(&window[i]);
}

static void plain_functions(void)
{
    for (size_t size = 0; size <= LARGEST; size++) {
        block_accept(malloc(size), size, 16, "malloc");
        if (size <= 4096 || size % 7 == 0) {
            block_accept(calloc(1, size), size, 16, "calloc");
            block_accept(realloc(malloc(size / 2), size + 1), size + 1, 16, "realloc");
        }
        if (size % 1000 == 0)
            window_check_and_empty();
    }
    window_check_and_empty();
}

static void aligned_functions(size_t size, size_t alignment)
{
    void *block = NULL;
    block_accept(memalign(alignment, size), size, alignment, "memalign");
    block_accept(aligned_alloc(alignment, size), size, alignment, "aligned_alloc");
    if (alignment >= sizeof(void *)) {
        CHECK(posix_memalign(&block, alignment, size) == 0);
        block_accept(block, size, alignment, "posix_memalign");
    }
}

/* Every size while small, then every border of 16 and a step that hits all remainders. */
static size_t next_size(size_t size)
{
    return size < 600 ? size + 1 : size < 5000 ? size + 13 : size + 509;
}

static void aligned_sizes(void)
{
    for (size_t alignment = 1; alignment <= LARGEST_ALIGNMENT; alignment *= 2) {
        for (size_t size = 0; size <= LARGEST; size = next_size(size))
            aligned_functions(size, alignment);
        window_check_and_empty();
    }
    for (size_t size = 0; size <= LARGEST; size = next_size(size)) {
        block_accept(valloc(size), size, 4096, "valloc");
        block_accept(pvalloc(size), size, 4096, "pvalloc");
    }
    window_check_and_empty();
}

int main(void)
{
    plain_functions();
    aligned_sizes();
    return 0;
}
