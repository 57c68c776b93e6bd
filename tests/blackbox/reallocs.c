/* realloc keeps contents: from every size to every size, across the border between pools and next allocator,
 * from aligned blocks, and when it fails. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>

#include "check.h"
#include "pattern.h"
#include "process.h"
#include "threads.h"

/* The sizes around every border that a pool allocator may have, and a few far beyond. */
static size_t sizes[400];
static int size_count;

static void size_add(size_t size)
{
    CHECK(size_count < (int)(sizeof sizes / sizeof *sizes));
    sizes[size_count++] = size;
}

static void sizes_make(void)
{
    for (size_t size = 1; size <= 16; size *= 2)
        size_add(size);
    for (size_t power = 32; power <= 65536; power *= 2)
        for (size_t quarter = 0; quarter < 4; quarter++) {
            size_t edge = power + power / 4 * quarter;
            size_add(edge - 1);
            size_add(edge);
            size_add(edge + 1);
        }
    size_add(131072);
    size_add(200000);
    size_add(1 << 20);
    size_add(3 << 20);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void realloc_checked(void *(*make)(size_t), size_t from, size_t to)
{
    char *block = make(from);
    CHECK(block != NULL);
    size_t usable = malloc_usable_size(block);
    pattern_stamp(block, from, from ^ to);
    char *moved = realloc(block, to);
    CHECKF(moved != NULL, "realloc from %zu to %zu gave NULL", from, to);
    CHECK((uintptr_t)moved % 16 == 0 && malloc_usable_size(moved) >= to);
    CHECKF(pattern_stamped(moved, from, smaller(from, to), from ^ to), "realloc from %zu (usable %zu) to %zu lost contents", from, usable, to);
    pattern_stamp(moved, to, to);
    CHECK(pattern_stamped(moved, to, to, to));
    free(moved);
}

static void *make_plain(size_t size) { return malloc(size); }
static void *make_aligned(size_t size) { return memalign(64, size); }
static void *make_page(size_t size) { return memalign(4096, size); }

static void all_pairs(void)
{
    for (int from = 0; from < size_count; from++)
        for (int to = 0; to < size_count; to++) {
            realloc_checked(make_plain, sizes[from], sizes[to]);
            if ((from + to) % 5 == 0)
                realloc_checked(make_aligned, sizes[from], sizes[to]);
            if ((from + to) % 17 == 0)
                realloc_checked(make_page, sizes[from], sizes[to]);
        }
}

/* What was requested counts less than what was usable: systemd and others write up to the usable size. */
static void usable_bytes_are_kept(void)
{
    for (size_t size = 1; size < 66000; size += size < 1000 ? 1 : 61) {
        char *block = malloc(size);
        size_t usable = malloc_usable_size(block);
        pattern_stamp(block, usable, size);
        block = realloc(block, usable * 2 + 1);
        CHECKF(block != NULL && pattern_stamped(block, usable, usable, size), "usable bytes of %zu lost in realloc", size);
        free(block);
    }
}

/* One block up through every size and down again, as a growing vector does it. */
static void chains(void)
{
    size_t before = 1;
    char *block = malloc(before);
    pattern_fill(block, before, 5);
    for (size_t size = 2; size < 3u << 20; size += size / 3 + 1) {
        CHECK((block = realloc(block, size)) != NULL);
        CHECKF(pattern_holds(block, before, 5), "growing to %zu lost contents", size);
        pattern_fill_range(block, before, size, 5);
        before = size;
    }
    while (before > 1) {
        size_t size = before - before / 4 - 1;
        CHECK((block = realloc(block, size ? size : 1)) != NULL);
        CHECKF(pattern_holds(block, size, 5), "shrinking to %zu lost contents", size);
        before = size;
    }
    free(block);
}

/* A buffer that grows by a page at a time, of which there are only 65,530 mappings in a process. */
static void *growing(void *seed)
{
    enum { LEAST = 300000, MOST = 4 << 20, STEP = 4096 };
    uint64_t what = (uintptr_t)seed;
    for (int round = 0; round < 2; round++) {
        size_t size = LEAST + what * 500;
        char *block = malloc(size);
        CHECK(block != NULL);
        pattern_fill(block, size, what);
        for (; size < MOST; size += STEP) {
            CHECK((block = realloc(block, size + STEP)) != NULL);
            CHECKF(pattern_holds(block, STEP, what), "growing to %zu lost contents", size + STEP);
            pattern_fill_range(block, size, size + STEP, what);
        }
        CHECK(pattern_holds(block, size, what));
        CHECKF(mappings_of(block, size) <= 2, "a block of %zu bytes lies in %d mappings", size, mappings_of(block, size));
        free(block);
    }
    return NULL;
}

/* Together: a place that one leaves may be where the other one comes. */
static void buffers_grow(void)
{
    pthread_t thread[4];
    for (uintptr_t i = 0; i < 4; i++)
        thread[i] = thread_start(growing, (void *)i);
    for (int i = 0; i < 4; i++)
        thread_join(thread[i]);
}

/* Sizes of which half as much again, or a header, wraps round; the block has moved to grow before, or not. */
static void sizes_that_wrap(void)
{
    static const size_t most[] = {SIZE_MAX, SIZE_MAX - 15, SIZE_MAX - 4096, SIZE_MAX / 2 + 1, SIZE_MAX / 3 * 2 + 1, SIZE_MAX / 3 * 2 + 2,
                                  SIZE_MAX / 3 * 2 + 1000, SIZE_MAX / 3 * 2 + 100000};
    for (size_t moves = 0; moves < 5; moves++)
        for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
            size_t size = 16;
            char *block = malloc(size);
            for (size_t n = 0; n < moves; n++)
                CHECK((block = realloc(block, size = size * 5 / 2)) != NULL);
            pattern_stamp(block, size, 5);
            errno = 0;
            CHECK(realloc(block, opaque(most[i])) == NULL && errno == ENOMEM);
            CHECK(pattern_stamped(block, size, size, 5));
            free(block);
        }
}

static void failed_realloc_keeps_the_block(void)
{
    for (int i = 0; i < size_count; i++) {
        char *block = malloc(sizes[i]);
        pattern_stamp(block, sizes[i], 9);
        errno = 0;
        CHECK(realloc(block, opaque(PTRDIFF_MAX) - 4096) == NULL && errno == ENOMEM);
        CHECK(pattern_stamped(block, sizes[i], sizes[i], 9));
        free(block);
    }
}

int main(void)
{
    sizes_make();
    all_pairs();
    usable_bytes_are_kept();
    chains();
    buffers_grow();
    failed_realloc_keeps_the_block();
    sizes_that_wrap();
    return 0;
}
