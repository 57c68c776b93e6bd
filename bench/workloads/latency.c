/* latency: every single malloc and free timed, in random replacement of a live set; the clock's own
 * cost is taken off. Quantiles and the whole histogram, in ns.
 * Sizes: 16 to 2048 B, log-uniform; 16384 live blocks. Never reads what it stored.
 * Idea: HdrHistogram-style tail measurement, after rpmalloc's and snmalloc's latency figures. */
#include "common.h"

#if defined __x86_64__
#include <x86intrin.h>
static inline uint64_t tick(void)
{
    _mm_lfence();
    return __rdtsc();
}
#else
static inline uint64_t tick(void) { return time_ns(); }
#endif

enum { LIVE = 16384 };

static histogram malloc_ticks, free_ticks;
static double tick_ns = 1;
static uint64_t overhead;

static void ticks_calibrate(void)
{
    uint64_t begin_ns = time_ns(), begin = tick(), now;
    overhead = UINT64_MAX;
    do {
        uint64_t a = tick(), b = tick();
        if (b - a < overhead)
            overhead = b - a;
        now = time_ns();
    } while (now - begin_ns < 10000000);
    tick_ns = (double)(now - begin_ns) / (double)(tick() - begin);
}

static void ticks_add(histogram *h, uint64_t begin, uint64_t end)
{
    uint64_t spent = end - begin;
    histogram_add(h, spent > overhead ? spent - overhead : 0);
}

static void slot_replace(void **slot, size_t size)
{
    uint64_t begin = tick();
    free(*slot);
    uint64_t middle = tick();
    void *block = malloc(size);
    uint64_t end = tick();
    if (*slot)
        ticks_add(&free_ticks, begin, middle);
    ticks_add(&malloc_ticks, middle, end);
    *slot = block_written(block, size);
}

static void run(worker *w)
{
    void **live = memory_map(LIVE * sizeof *live);
    memset(live, 0, LIVE * sizeof *live); /* its page faults are not the allocator's */
    memset(&malloc_ticks, 0, sizeof malloc_ticks);
    memset(&free_ticks, 0, sizeof free_ticks);
    ticks_calibrate();
    for (uint64_t n; (n = worker_grant(w, 1024)); w->done += n)
        for (uint64_t i = 0; i < n; i++)
            slot_replace(&live[random_below(&w->random, LIVE)], random_size(&w->random, 16, 7));
}

static void extra(FILE *out)
{
    histogram_print(&malloc_ticks, "malloc_ns", tick_ns, out);
    histogram_print(&free_ticks, "free_ns", tick_ns, out);
}

const workload bench_workload = {
    .name = "latency", .purpose = "The time of each single call: quantiles and histogram. One thread.",
    .run = run, .extra = extra, .allocations_per_operation = 1, .defaults = {.threads = 1, .operations = 2000000}};
