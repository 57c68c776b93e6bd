/* Empty memory goes back to the system by itself, after a delay and some calls, and does so in few mappings.
 * Argument: milliseconds to wait after the frees. */
#include <malloc.h>

#include "check.h"
#include "pattern.h"
#include "process.h"

enum { SLOTS = 60000, LEFT_KIB = 32 * 1024 };

static void *slots[SLOTS];

/* Calls of many sizes: the places where an allocator without helper threads may do its housekeeping. */
static void calls_of_many_sizes(void)
{
    void *held[64];
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < 64; i++)
            held[i] = malloc((size_t)(16 + i * 120 + round * 60));
        for (int i = 0; i < 64; i++)
            free(held[i]);
    }
}

/* A heap of changing sizes, so that slabs empty and fill in no order. */
static void churn(void)
{
    Random random = {3};
    for (int i = 0; i < 20 * SLOTS; i++) {
        size_t at = random_below(&random, SLOTS), size = random_below(&random, i / SLOTS % 2 ? 6000 : 500) + 1;
        free(slots[at]);
        CHECK((slots[at] = malloc(size)) != NULL);
        memset(slots[at], 1, size);
    }
}

int main(int argc, char **argv)
{
    memset(slots, 0, sizeof slots);
    long baseline = rss_kib();
    churn();
    long full = rss_kib(), mappings = mapping_count();
    CHECKF(mappings < 1000, "%ld mappings", mappings);
    for (int i = 0; i < SLOTS; i++)
        free(slots[i]);
    sleep_ms(argument(argc, argv, 1, 1500));
    calls_of_many_sizes();
    sleep_ms(50);
    calls_of_many_sizes();
    long left = rss_kib() - baseline;
    printf("baseline %ld KiB, full %ld, left %ld, %ld mappings, then %ld\n", baseline, full, left, mappings, mapping_count());
    CHECK(full - baseline > 3 * LEFT_KIB);
    CHECKF(left < LEFT_KIB, "%ld of %ld KiB remain after all is freed", left, full - baseline);
    CHECKF(mapping_count() < 1000, "%ld mappings", mapping_count());
    return 0;
}
