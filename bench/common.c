/* The workloads' harness: see common.h. Its own memory is static or mapped, never from the heap. */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

bench_options options;

static const workload *current;
static uint64_t deadline; /* time_ns(), when running by seconds */
static struct { worker state; pthread_t thread; char apart[64]; } workers[THREADS_MAX];
static pthread_barrier_t start_line;

void bench_fail(const char *message)
{
    fprintf(stderr, "%s: %s\n", current ? current->name : "bench", message);
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
        return time_ns() < deadline ? most : 0;
    uint64_t left = w->quota > w->done ? w->quota - w->done : 0;
    return left < most ? left : most;
}

/* ---- options ---- */

static _Noreturn void usage_fail(const char *what, const char *value)
{
    fprintf(stderr, "%s: %s '%s' (see --help)\n", current->name, what, value);
    exit(2);
}

static void variants_print(void)
{
    printf("  --variant NAME   one of:");
    for (const char *const *v = current->variants; *v; v++)
        printf(" %s", *v);
    printf(" (default %s)\n", *current->variants);
}

static _Noreturn void help_print(void)
{
    const bench_options *d = &current->defaults;
    printf("Usage: %s [OPTION]...\n%s\n\n"
           "  --threads N      worker threads, 1 to %d (default %u)\n"
           "  --operations N   total over all threads (default %llu)\n"
           "  --seconds S      run for S seconds instead\n"
           "  --size BYTES     one size instead of the distribution, where that makes sense\n"
           "  --settle S       seconds of near idleness at the end (phases; default %g)\n"
           "  --pin            each worker on a processor of its own\n",
           current->name, current->purpose, THREADS_MAX, d->threads, (unsigned long long)d->operations, d->settle);
    if (current->variants)
        variants_print();
    puts("Prints one line of JSON. Exit status: 0 done, 1 failed, 2 wrong usage.");
    exit(0);
}

static double number_parse(const char *name, const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high))
        usage_fail(name, text);
    return value;
}

static const char *variant_parse(const char *text)
{
    for (const char *const *v = current->variants; v && *v; v++)
        if (strcmp(*v, text) == 0)
            return *v;
    usage_fail("unknown variant", text);
}

static void option_take(const char *name, const char *value)
{
    if (strcmp(name, "--threads") == 0)
        options.threads = (unsigned)number_parse("bad number of threads", value, 1, THREADS_MAX);
    else if (strcmp(name, "--operations") == 0)
        options.operations = (uint64_t)number_parse("bad number of operations", value, 1, 1e15);
    else if (strcmp(name, "--seconds") == 0)
        options.seconds = number_parse("bad number of seconds", value, 0.001, 1e6);
    else if (strcmp(name, "--size") == 0)
        options.size = (size_t)number_parse("bad size", value, 1, 1 << 30);
    else if (strcmp(name, "--settle") == 0)
        options.settle = number_parse("bad number of seconds", value, 0, 1e6);
    else if (strcmp(name, "--variant") == 0)
        options.variant = variant_parse(value);
    else
        usage_fail("unknown option", name);
}

static void options_parse(int argc, char **argv)
{
    options = current->defaults;
    if (current->variants)
        options.variant = current->variants[0];
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0)
            help_print();
        else if (strcmp(argv[i], "--pin") == 0)
            options.pin = true;
        else if (i + 1 == argc)
            usage_fail("unknown option, or one without its value:", argv[i]);
        else
            option_take(argv[i], argv[i + 1]), i++;
    }
}

/* ---- workers ---- */

static void worker_pin(unsigned id)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    int skip = (int)id % CPU_COUNT(&allowed);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || skip-- > 0)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
        return;
    }
}

static void *worker_start(void *argument)
{
    worker *w = argument;
    if (options.pin)
        worker_pin(w->id);
    pthread_barrier_wait(&start_line);
    current->run(w);
    return NULL;
}

static void worker_init(unsigned id)
{
    worker *w = &workers[id].state;
    w->id = id;
    w->random = 0x9E3779B97F4A7C15U * (id + 1);
    w->quota = share_of(options.operations, id, options.threads);
}

/* A single worker runs on the main thread, as a single-threaded program would. */
static void workers_run(void)
{
    for (unsigned i = 0; i < options.threads; i++)
        worker_init(i);
    if (options.threads == 1) {
        current->run(&workers[0].state);
        return;
    }
    pthread_barrier_init(&start_line, NULL, options.threads);
    for (unsigned i = 0; i < options.threads; i++)
        if (pthread_create(&workers[i].thread, NULL, worker_start, &workers[i].state))
            bench_fail("cannot create a thread");
    for (unsigned i = 0; i < options.threads; i++)
        pthread_join(workers[i].thread, NULL);
}

/* ---- result ---- */

static uint64_t operations_done(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < options.threads; i++)
        sum += workers[i].state.done;
    return sum;
}

static void result_print(double seconds)
{
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double done = (double)operations_done();
    printf("{\"workload\": \"%s\", ", current->name);
    if (options.variant)
        printf("\"variant\": \"%s\", ", options.variant);
    if (current->extra)
        current->extra(stdout);
    printf("\"threads\": %u, \"operations\": %.0f, \"allocations\": %.0f, \"seconds\": %.6f, "
           "\"operations_per_second\": %.1f, \"peak_rss_kib\": %ld}\n",
           options.threads, done, done * current->allocations_per_operation, seconds, done / seconds, usage.ru_maxrss);
}

int bench_main(int argc, char **argv, const workload *work)
{
    current = work;
    options_parse(argc, argv);
    uint64_t begin = time_ns();
    deadline = begin + (uint64_t)(options.seconds * 1e9);
    workers_run();
    result_print((double)(time_ns() - begin) / 1e9);
    return 0;
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
