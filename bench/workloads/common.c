/* common.c: see common.h. Calls nothing of the workloads or of main.c. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

bench_options options;

void bench_fail(const char *message)
{
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, message);
    _exit(1);
}

uint64_t time_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

void *memory_map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        bench_fail("cannot map memory");
    return p;
}

uint64_t rss_kib(void)
{
    char text[4096];
    int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    const char *rss = strstr(text, "Rss:");
    return rss ? strtoull(rss + 4, NULL, 10) : 0;
}

uint64_t share_of(uint64_t total, unsigned index, unsigned count)
{
    return total / count + (index < total % count);
}

bool variant_is(const char *name) { return strcmp(options.variant, name) == 0; }

uint64_t worker_grant(const worker *w, uint64_t most)
{
    if (options.seconds > 0)
        return time_ns() < options.deadline ? most : 0;
    uint64_t left = w->quota > w->done ? w->quota - w->done : 0;
    return left < most ? left : most;
}

/* ---- histogram ---- */

static unsigned bucket_of(uint64_t value)
{
    if (value < 32)
        return (unsigned)value;
    unsigned log = 63U - (unsigned)__builtin_clzll(value);
    unsigned bucket = (log - 3) * 16 + (unsigned)((value >> (log - 4)) & 15);
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

static uint64_t bucket_value(unsigned bucket)
{
    return bucket < 32 ? bucket : (uint64_t)(16 + bucket % 16) << (bucket / 16 - 1);
}

void histogram_add(histogram *h, uint64_t value)
{
    h->count[bucket_of(value)]++;
    h->total++;
    if (value > h->max)
        h->max = value;
}

static double histogram_quantile(const histogram *h, double quantile)
{
    uint64_t seen = 0, wanted = (uint64_t)((double)h->total * quantile);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        if ((seen += h->count[i]) > wanted)
            return (double)bucket_value(i);
    return (double)h->max;
}

void histogram_print(const histogram *h, const char *name, double unit_ns, FILE *out)
{
    static const struct { const char *name; double quantile; } row[] = {
        {"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}};
    fprintf(out, "\"%s\": {", name);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        fprintf(out, "\"%s\": %.1f, ", row[i].name, histogram_quantile(h, row[i].quantile) * unit_ns);
    fprintf(out, "\"max\": %.1f, \"buckets\": [", (double)h->max * unit_ns);
    const char *separator = "";
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (!h->count[i])
            continue;
        fprintf(out, "%s[%.1f, %llu]", separator, (double)bucket_value(i) * unit_ns, (unsigned long long)h->count[i]);
        separator = ", ";
    }
    fputs("]}, ", out);
}
