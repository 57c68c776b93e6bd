/* common.h: what every workload uses: options, time, random numbers, blocks, histograms. Above it each workload defines
 * bench_workload, and above that main.c runs it.
 * None of it allocates from the heap: whatever the harness keeps lies in static or mapped memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { THREADS_MAX = 256 };

typedef struct bench_options {
    unsigned threads;
    double seconds;      /* > 0: run for this long, and `operations` does not count */
    uint64_t operations; /* total over all threads */
    size_t size;         /* bytes; 0 = the workload's own distribution */
    const char *variant; /* one of the workload's variants */
    double settle;       /* seconds of near idleness at the end, where a workload has such a phase */
    bool pin;            /* worker i on the i-th allowed processor */
    uint64_t deadline;   /* time_ns() when `seconds` are over; main.c's, no option */
} bench_options;

typedef struct worker {
    unsigned id;
    uint64_t random; /* state of random_next() */
    uint64_t quota;  /* operations to do, when not running by seconds */
    uint64_t done;   /* operations finished */
} worker;

typedef struct workload {
    const char *name, *purpose;
    const char *const *variants;   /* NULL-terminated, the first is the default; NULL = none */
    bench_options defaults;
    double allocations_per_operation; /* 0 = not known */
    void (*run)(worker *);
    void (*extra)(FILE *);         /* more members for the JSON line, each `"name": value, `; or NULL */
} workload;

extern bench_options options;

extern const workload bench_workload; /* each workload's own */

__attribute__((noreturn)) void bench_fail(const char *message);

/* How many operations to do before asking again, at most `most`; 0 = finished. */
uint64_t worker_grant(const worker *, uint64_t most);
uint64_t share_of(uint64_t total, unsigned index, unsigned count);
bool variant_is(const char *name);

uint64_t time_ns(void);
void *memory_map(size_t bytes); /* zeroed, outside the heap */
uint64_t rss_kib(void);         /* exact: from smaps_rollup */

/* xorshift64*: a few cycles, no state but one word. */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12, x ^= x << 25, x ^= x >> 27;
    *state = x;
    return x * 0x2545F4914F6CDD1DU;
}

static inline uint64_t random_below(uint64_t *state, uint64_t limit)
{
    return ((random_next(state) >> 32) * limit) >> 32;
}

/* Log-uniform (density 1/size) in [low, low << octaves): each octave is as likely as any other. */
static inline size_t random_size(uint64_t *state, size_t low, unsigned octaves)
{
    uint64_t octave = random_below(state, octaves);
    return (low << octave) + (size_t)random_below(state, low << octave);
}

/* Writes the first and the last word, as the least that a real program does with its block. */
static inline void block_write(void *block, size_t size)
{
    static const uint64_t word = 0x0123456789abcdefU;
    size_t n = size < sizeof word ? size : sizeof word;
    memcpy(block, &word, n);
    memcpy((char *)block + size - n, &word, n);
}

static inline void *block_written(void *block, size_t size)
{
    if (!block)
        bench_fail("out of memory");
    block_write(block, size);
    return block;
}

static inline void *block_new(size_t size) { return block_written(malloc(size), size); }

/* Latency histogram: 16 buckets to the doubling, so a bucket is at most 6 % wide. */
enum { HISTOGRAM_BUCKETS = 16 * 48 };
typedef struct histogram { uint64_t count[HISTOGRAM_BUCKETS], total, max; } histogram;
void histogram_add(histogram *, uint64_t value);
void histogram_print(const histogram *, const char *name, double unit_ns, FILE *);

#ifdef __cplusplus
}
#endif
