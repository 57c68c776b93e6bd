/* phases: memory peaks, falls, comes back with another mix of sizes, falls, and then the program is
 * nearly idle: RSS over time, and does it come back to what is alive?
 * Sizes: 32 to 512 B, then 128 to 4096 B, log-uniform; 64 MiB at each peak. At a fall the blocks of
 * the phase are freed in random order, but for the eighth that was built last: what a phase leaves
 * behind was made together. Near idleness is ten pairs each 5 ms, for --settle seconds.
 * Idea: the peaks of rss-over-time charts in the Mesh and jemalloc papers. */
#include "common.h"

#include <unistd.h>

enum { PEAK = 64 << 20, PHASES = 2, BLOCKS_MOST = PEAK / 128, SAMPLES = 4096 };

static struct { double seconds; uint64_t rss_kib, live_kib; } samples[SAMPLES];
static unsigned samples_count;
static uint64_t began, live_bytes, base_kib;

static void sample_take(void)
{
    if (samples_count == SAMPLES)
        return;
    samples[samples_count].seconds = (double)(time_ns() - began) / 1e9;
    samples[samples_count].rss_kib = rss_kib();
    samples[samples_count++].live_kib = live_bytes >> 10;
}

typedef struct phase { unsigned count, low, octaves; void **block; uint16_t *size; } phase;

static void phase_grow(phase *p, uint64_t *random)
{
    for (uint64_t end = live_bytes + PEAK; live_bytes < end; p->count++) {
        p->size[p->count] = (uint16_t)random_size(random, p->low, p->octaves);
        p->block[p->count] = block_new(p->size[p->count]);
        memset(p->block[p->count], 1, p->size[p->count]);
        live_bytes += p->size[p->count];
        if (p->count % (BLOCKS_MOST / 32) == 0)
            sample_take();
    }
    sample_take();
}

static void block_swap(phase *p, unsigned i, unsigned j)
{
    void *block = p->block[i];
    uint16_t size = p->size[i];
    p->block[i] = p->block[j], p->size[i] = p->size[j];
    p->block[j] = block, p->size[j] = size;
}

static void phase_fall(phase *p, uint64_t *random)
{
    unsigned going = p->count - p->count / 8;
    for (unsigned left = going; left > 0; left--) {
        block_swap(p, (unsigned)random_below(random, left), left - 1);
        free(p->block[left - 1]);
        live_bytes -= p->size[left - 1];
        if (left % (BLOCKS_MOST / 32) == 0)
            sample_take();
    }
    sample_take();
}

static void idle(uint64_t *random, double seconds)
{
    for (uint64_t end = time_ns() + (uint64_t)(seconds * 1e9), n = 0; time_ns() < end; n++) {
        for (unsigned i = 0; i < 10; i++)
            free(block_new(random_size(random, 16, 8)));
        if (n % 8 == 0)
            sample_take();
        usleep(5000);
    }
    sample_take();
}

/* Page tables and pages of the harness' own arrays are not the allocator's. */
static void phases_init(phase *all)
{
    for (unsigned i = 0; i < PHASES; i++) {
        all[i] = i % 2 ? (phase){.low = 128, .octaves = 5} : (phase){.low = 32, .octaves = 4};
        size_t most = i % 2 ? BLOCKS_MOST / 4 : BLOCKS_MOST;
        all[i].block = memory_map(most * sizeof(void *));
        all[i].size = memory_map(most * sizeof(uint16_t));
        memset(all[i].block, 0xff, most * sizeof(void *));
        memset(all[i].size, 0xff, most * sizeof(uint16_t));
    }
    memset(samples, 0xff, sizeof samples);
    began = time_ns();
    base_kib = rss_kib();
}

static void run(worker *w)
{
    static phase all[PHASES];
    phases_init(all);
    for (unsigned i = 0; i < PHASES; i++) {
        phase_grow(&all[i], &w->random);
        w->done += all[i].count;
        phase_fall(&all[i], &w->random);
        idle(&w->random, i + 1 < PHASES ? options.settle / 5 : options.settle);
    }
}

static void extra(FILE *out)
{
    fprintf(out, "\"base_rss_kib\": %llu, \"rss\": [", (unsigned long long)base_kib);
    for (unsigned i = 0; i < samples_count; i++)
        fprintf(out, "%s[%.4f, %llu, %llu]", i ? ", " : "", samples[i].seconds,
                (unsigned long long)samples[i].rss_kib, (unsigned long long)samples[i].live_kib);
    fputs("], ", out);
}

const workload bench_workload = {
    .name = "phases", .purpose = "Peaks and falls with changing sizes; RSS over time. One thread, fixed work.",
    .run = run, .extra = extra, .allocations_per_operation = 1,
    .defaults = {.threads = 1, .operations = 1, .settle = 1.5}};
