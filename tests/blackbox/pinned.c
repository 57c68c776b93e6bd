/* A few blocks must not hold the rest of their slabs. Those that a thread has at hand when it has freed most of its memory, in
 * random order, and then makes no other call; and those still in use, once malloc_trim is called. What is in use keeps its
 * contents, and the memory can be used again. */
#include <malloc.h>

#include "check.h"
#include "pattern.h"
#include "process.h"

enum { BLOCKS = 300000, PINS = 256, PAGES = 20000, PAGE_HALF = 2000 };

static void *blocks[BLOCKS];
static size_t sizes[BLOCKS], order[BLOCKS];

static void shuffle(Random *random)
{
    for (size_t i = 0; i < BLOCKS; i++)
        order[i] = i;
    for (size_t i = BLOCKS - 1; i > 0; i--) {
        size_t j = random_below(random, i + 1), k = order[i];
        order[i] = order[j], order[j] = k;
    }
}

/* Frees all but those for which the function says so; returns KiB before and after. */
static void fall(bool (*stays)(size_t), long *full, long *left)
{
    Random random = {7};
    shuffle(&random);
    long before = rss_kib();
    for (size_t i = 0; i < BLOCKS; i++) {
        sizes[i] = 16 + random_below(&random, 496);
        CHECK((blocks[i] = malloc(sizes[i])) != NULL);
        pattern_fill(blocks[i], sizes[i], i);
    }
    *full = rss_kib() - before;
    for (size_t n = 0; n < BLOCKS; n++) {
        size_t i = order[n];
        CHECK(pattern_holds(blocks[i], sizes[i], i));
        if (!stays(i))
            free(blocks[i]);
    }
    *left = rss_kib() - before;
}

static void rest_free(bool (*stays)(size_t))
{
    for (size_t i = 0; i < BLOCKS; i++)
        if (stays(i)) {
            CHECK(pattern_holds(blocks[i], sizes[i], i));
            free(blocks[i]);
        }
}

static bool last_part(size_t i) { return i >= BLOCKS - BLOCKS / 16; }
static bool scattered(size_t i) { return i % PINS == 0; }

static void at_hand(void)
{
    long full, left;
    fall(last_part, &full, &left);
    printf("one in 16 stays: full %ld KiB, left %ld\n", full, left);
    CHECKF(left * 100 < full * 30, "%ld of %ld KiB remain", left, full);
    rest_free(last_part);
}

static void in_use(void)
{
    long full, left, before = rss_kib();
    fall(scattered, &full, &left);
    CHECK(malloc_trim(0) == 1);
    long trimmed = rss_kib() - before;
    printf("one in %d stays: full %ld KiB, left %ld, after malloc_trim %ld\n", PINS, full, left, trimmed);
    CHECKF(trimmed * 100 < full * 25, "%ld of %ld KiB remain", trimmed, full);
    rest_free(scattered);
}

/* Three of four neighbours go, so that half of the pages and more are free: a malloc_trim that looks at whole slabs finds
 * none of them. */
static void between_blocks(void)
{
    for (size_t i = 0; i < PAGES; i++) {
        CHECK((blocks[i] = malloc(PAGE_HALF)) != NULL);
        pattern_fill(blocks[i], PAGE_HALF, i);
    }
    long full = rss_kib();
    for (size_t i = 0; i < PAGES; i++)
        if (i % 4)
            free(blocks[i]);
    CHECK(malloc_trim(0) == 1);
    long less = full - rss_kib();
    printf("malloc_trim: %ld KiB less of %d\n", less, 2 * PAGES);
    CHECKF(less > PAGES * 3 / 4, "only %ld KiB less", less);
    for (size_t i = 0; i < PAGES; i += 4) {
        CHECK(pattern_holds(blocks[i], PAGE_HALF, i));
        free(blocks[i]);
    }
}

int main(int argc, char **argv)
{
    memset(blocks, 0, sizeof blocks);
    memset(sizes, 0, sizeof sizes);
    memset(order, 0, sizeof order);
    at_hand();
    if (sysconf(_SC_PAGESIZE) > 4096) /* too few pages have no block */
        return 0;
    in_use();
    if (argument(argc, argv, 1, 1)) /* 0: huge pages are kept where more than an eighth of one is in use */
        between_blocks();
    return 0;
}
