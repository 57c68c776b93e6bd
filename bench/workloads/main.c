/* main.c: every workload's main: parses the options, runs the workers, prints one line of JSON.
 * Its own memory is static, never from the heap. */
#include "common.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

/* ---- options ---- */

static _Noreturn void usage_fail(const char *what, const char *value)
{
    fprintf(stderr, "%s: %s '%s' (see --help)\n", bench_workload.name, what, value);
    exit(2);
}

static void variants_print(void)
{
    printf("  --variant NAME   one of:");
    for (const char *const *v = bench_workload.variants; *v; v++)
        printf(" %s", *v);
    printf(" (default %s)\n", *bench_workload.variants);
}

static _Noreturn void help_print(void)
{
    const bench_options *d = &bench_workload.defaults;
    printf("Usage: %s [OPTION]...\n%s\n\n"
           "  --threads N      worker threads, 1 to %d (default %u)\n"
           "  --operations N   total over all threads (default %llu)\n"
           "  --seconds S      run for S seconds instead\n"
           "  --size BYTES     one size instead of the distribution, where that makes sense\n"
           "  --settle S       seconds of near idleness at the end (phases; default %g)\n"
           "  --pin            each worker on a processor of its own\n",
           bench_workload.name, bench_workload.purpose, THREADS_MAX, d->threads, (unsigned long long)d->operations, d->settle);
    if (bench_workload.variants)
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
    for (const char *const *v = bench_workload.variants; v && *v; v++)
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
    options = bench_workload.defaults;
    if (bench_workload.variants)
        options.variant = bench_workload.variants[0];
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

static struct { worker state; pthread_t thread; char apart[64]; } workers[THREADS_MAX];
static pthread_barrier_t start_line;

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
    bench_workload.run(w);
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
        bench_workload.run(&workers[0].state);
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
    printf("{\"workload\": \"%s\", ", bench_workload.name);
    if (options.variant)
        printf("\"variant\": \"%s\", ", options.variant);
    if (bench_workload.extra)
        bench_workload.extra(stdout);
    printf("\"threads\": %u, \"operations\": %.0f, \"allocations\": %.0f, \"seconds\": %.6f, "
           "\"operations_per_second\": %.1f, \"peak_rss_kib\": %ld}\n",
           options.threads, done, done * bench_workload.allocations_per_operation, seconds, done / seconds, usage.ru_maxrss);
}

int main(int argc, char **argv)
{
    options_parse(argc, argv);
    uint64_t begin = time_ns();
    options.deadline = begin + (uint64_t)(options.seconds * 1e9);
    workers_run();
    result_print((double)(time_ns() - begin) / 1e9);
    return 0;
}
