/* who.c: `poolmalloc who`: which call stacks hold the memory of a running process, or of a command. */
#include "held.h"
#include "proc.h"
#include "tool.h"
#include "traced.h"
#include "who.h"
#include "words.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POLL_MS 200     /* between two looks at a running process */
#define POLL_PEAK_MS 20
#define SECONDS 10.0
#define REMARKS 8

typedef struct wish {
    const char *name;       /* of the command: who, leaks */
    pid_t pid;              /* 0: a command is run */
    char **command;
    double seconds;
    bool growth, peak, lines, leaks;
    held_by by;
    size_t rate;
    double least;           /* percent */
    bool folded, json, tree;
    const char *flame, *pprof;
    int status;             /* of leaks, when there are some; 0: the command's own */
} wish;

/* A process being watched. */
typedef struct watch {
    const wish *w;
    sampler sampler;
    held held;
    bool open, all;
    held_look look, first; /* the last; growth: the earlier one */
    bool has_first, ended;
    uint64_t began, first_ms, look_ms;
    double known;          /* bytes in the pools, by their own count */
    char command[32];
    pid_t pid;
} watch;

static volatile sig_atomic_t interrupted;
static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

/* ---- looking ---- */

static live_result watch_open(watch *w, pid_t pid)
{
    live_result result = sampler_open(&w->sampler, pid, w->w->rate);
    if (result != LIVE_FOUND)
        return result;
    if (!held_open(&w->held, pid, w->w->by, w->w->lines)) {
        sampler_close(&w->sampler);
        return LIVE_CHANGED;
    }
    w->pid = pid;
    w->open = true;
    w->all = w->sampler.word == 0; /* it has sampled before we came */
    w->began = os_now_ms();
    command_read(pid, w->command, sizeof w->command);
    return LIVE_FOUND;
}

static void watch_close(watch *w)
{
    if (w->open) {
        sampler_close(&w->sampler);
        held_close(&w->held);
    }
    w->open = false;
}

static double pools_used(pid_t pid)
{
    static pm_stats s;
    return live_stats(pid, &s) == LIVE_FOUND ? (double)s.used_bytes : -1;
}

/* The last look stays where this one fails. */
static live_result watch_look(watch *w)
{
    held_look look;
    live_result result = held_take(&w->held, &w->sampler, w->all, &look);
    if (result != LIVE_FOUND) {
        free(look.sum);
        return result;
    }
    if (w->w->peak && look.total.bytes <= w->look.total.bytes) {
        free(look.sum);
        return result;
    }
    free(w->look.sum);
    w->look = look;
    w->look_ms = os_now_ms();
    return result;
}

/* ---- showing ---- */

static const char *what_of(const watch *w, char *to, size_t bytes)
{
    if (w->w->leaks)
        return "no pointer to it was found at the end";
    if (w->has_first)
        snprintf(to, bytes, "what grew in %.1f s", (double)(w->look_ms - w->first_ms) / 1000);
    else
        snprintf(to, bytes, "allocated since %s, and held%s", w->all ? "it began to sample" : "we looked",
                 w->w->peak ? " at the peak" : w->w->command ? " at the end" : "");
    return to;
}

static void remark(char (*texts)[200], const char **list, size_t *count, const char *format, size_t a, size_t b)
{
    snprintf(texts[*count], sizeof *texts, format, a, b);
    list[*count] = texts[*count];
    list[++*count] = NULL;
}

static void remarks_make(const watch *w, char (*texts)[200], const char **list)
{
    size_t n = 0, unnamed = unwinder_unnamed(w->held.names);
    list[0] = NULL;
    if (w->ended && !w->w->command)
        remark(texts, list, &n, "note: the process ended meanwhile: this is the last look at it", 0, 0);
    if (w->look.total.samples == 0)
        remark(texts, list, &n, "note: no sample: nothing was allocated that is still held, or less than the rate", 0, 0);
    if (w->look.cut)
        remark(texts, list, &n, "note: %zu of %zu stacks are cut off: deeper than the copy, or through code without unwind information",
               w->look.cut, w->look.total.samples);
    if (unnamed)
        remark(texts, list, &n, "note: %zu addresses have no name: their files have no symbols", unnamed, 0);
    if (w->look.torn)
        remark(texts, list, &n, "note: %zu samples made no sense and were left out", w->look.torn, 0);
    if ((double)w->sampler.table.missed > w->look.total.bytes / 100)
        remark(texts, list, &n, "note: %zu bytes found no room for a sample", (size_t)w->sampler.table.missed, 0);
}

static int file_error(const wish *w, const char *path)
{
    fprintf(stderr, "poolmalloc: %s: %s: %s\n", w->name, path, strerror(errno));
    return EXIT_NOT_SO;
}

static bool flame_write(const held_report *r, const char *path)
{
    FILE *file = fopen(path, "we");
    bool good = file && held_print_flame(r, file);
    return file && fclose(file) == 0 && good;
}

static int show(watch *w)
{
    char texts[REMARKS][200], what[100];
    const char *list[REMARKS + 1];
    if (w->has_first)
        held_subtract(&w->look, &w->first);
    remarks_make(w, texts, list);
    held_report r = {&w->held, &w->look, w->command, w->pid, what_of(w, what, sizeof what), (double)(w->look_ms - w->began) / 1000,
                     w->sampler.word ? who_word_rate(w->sampler.word) : w->w->rate, w->sampler.table.missed, w->known, list};
    if (w->w->tree && !held_print_tree(&r, stdout, w->w->least / 100))
        return EXIT_NOT_SO;
    if (w->w->folded && !held_print_folded(&r, stdout))
        return EXIT_NOT_SO;
    if (w->w->json && !held_print_json(&r, stdout))
        return EXIT_NOT_SO;
    for (const char **line = list; !w->w->tree && !w->w->json && *line; line++)
        fprintf(stderr, "poolmalloc: %s\n", *line);
    if (w->w->flame && !flame_write(&r, w->w->flame))
        return file_error(w->w, w->w->flame);
    if (w->w->pprof && !held_write_pprof(&r, w->w->pprof))
        return file_error(w->w, w->w->pprof);
    return 0;
}

/* ---- a running process ---- */

static void growth_begin(watch *w)
{
    w->first = w->look;
    w->first_ms = w->look_ms;
    w->has_first = true;
    memset(&w->look, 0, sizeof w->look);
}

/* Until the time is over, or the process; growth: the first look comes after a third of it. */
static live_result watch_for(watch *w)
{
    uint64_t whole = (uint64_t)(w->w->seconds * 1000), third = w->began + whole / 3, end = w->began + whole;
    for (;;) {
        uint64_t now = os_now_ms(), left = now < end ? end - now : 0;
        if (left > POLL_MS)
            left = POLL_MS;
        if (left > 0 && !interrupted)
            nanosleep(&(struct timespec){0, (long)left * 1000000}, NULL);
        bool last = interrupted || os_now_ms() >= end; /* what was held then is seen */
        live_result result = watch_look(w);
        if (result == LIVE_FOUND && !last)
            result = sampler_beat(&w->sampler);
        if (result != LIVE_FOUND || last)
            return result;
        if (w->w->growth && !w->has_first && os_now_ms() >= third)
            growth_begin(w);
    }
}

static int who_process(const wish *wanted)
{
    static watch w;
    w.w = wanted;
    w.known = -1;
    live_result result = watch_open(&w, wanted->pid);
    if (result != LIVE_FOUND)
        return live_error("who", wanted->pid, &w.sampler.control, result);
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    result = watch_for(&w);
    w.ended = result == LIVE_NO_PROCESS || result == LIVE_CHANGED;
    if (result != LIVE_FOUND && (!w.ended || w.look_ms == 0)) {
        live_error("who", wanted->pid, &w.sampler.control, result);
        watch_close(&w);
        return EXIT_NOT_SO;
    }
    w.known = w.ended ? -1 : pools_used(wanted->pid);
    int status = show(&w);
    watch_close(&w);
    return status;
}

/* ---- a command ---- */

/* It may run another program meanwhile: then all begins anew. */
static void command_look(watch *w, const traced *t)
{
    if (w->open && watch_look(w) != LIVE_FOUND && !t->ending) {
        watch_close(w);
        free(w->look.sum);
        memset(&w->look, 0, sizeof w->look);
    }
    if (!w->open && watch_open(w, t->pid) == LIVE_FOUND)
        watch_look(w);
}

static int command_status(const watch *w, const traced *t, int shown)
{
    if (shown != 0)
        return shown;
    return w->w->leaks && w->w->status && w->look.total.samples > 0 ? w->w->status : t->status;
}

static int never_seen(const wish *w, const traced *t)
{
    if (t->status != EXIT_CANNOT_RUN && t->status != EXIT_NOT_FOUND)
        fprintf(stderr, "poolmalloc: %s: '%s' %s\n", w->name, w->command[0],
                t->stops ? "ended without pools (a static or privileged program?)" : "ended before it could be looked at");
    return t->status ? t->status : EXIT_NOT_SO;
}

static int who_command_run(const wish *wanted)
{
    static watch w;
    static traced t;
    char rate[24];
    traced_state state;
    bool end_seen = false;
    w.w = wanted;
    w.known = -1;
    snprintf(rate, sizeof rate, "%zu", wanted->rate);
    if (!traced_start(&t, wanted->command, rate))
        return EXIT_CANNOT_RUN;
    while ((state = traced_wait(&t, wanted->peak ? POLL_PEAK_MS : POLL_MS)) != TRACED_ENDED) {
        if (!wanted->leaks || state == TRACED_ENDING)
            command_look(&w, &t);
        if (state == TRACED_ENDING && w.open && !end_seen) {
            end_seen = true;
            w.known = pools_used(t.pid);
            if (wanted->leaks)
                leaks_find(t.pid, &w.held, &w.look, &w.sampler);
        }
    }
    if (!w.open)
        return never_seen(wanted, &t);
    if (!end_seen)
        fprintf(stderr, "poolmalloc: %s: ptrace is not allowed here: this is the last look before the end\n", wanted->name);
    int status = command_status(&w, &t, show(&w));
    watch_close(&w);
    return status;
}

/* ---- the command line ---- */

static void help(void)
{
    puts("Usage: poolmalloc who PID [--seconds N | --growth [N]] [OPTION…]\n"
         "       poolmalloc who [--at-peak] [OPTION…] -- CMD [ARG…]\n"
         "Which call stacks hold the memory: of a running process, what was allocated since we looked and is still held (for 10\n"
         "seconds, or until Ctrl-C); of a command, from its start to its end, whatever ends it. Sizes are scaled up from\n"
         "samples, with an error bar of two standard deviations.\n\n"
         "  --seconds N    looks so long\n"
         "  --growth [N]   looks N seconds (default 30), and shows what grew since a third of that: leaks, not caches at work\n"
         "  --at-peak      of a command: what was held when it held most\n"
         "  --rate SIZE    one sample in so many bytes; default 32K\n"
         "  --by size|thread  a tree for each\n"
         "  --lines        with file and line, where debug information tells\n"
         "  --least P      leaves out what is below P percent; default 1\n"
         "  --folded       folded stacks, a line each\n"
         "  --json         one document\n"
         "  --flame FILE   a flame graph, SVG that can be searched\n"
         "  --pprof FILE   for pprof (profile.proto, gzipped)\n"
         "  --help\n\n"
         "Examples:\n"
         "  poolmalloc who redis-server\n"
         "  poolmalloc who 1234 --growth 60 --flame growth.svg\n"
         "  poolmalloc who --at-peak --lines -- ./program\n\n"
         "With one of --folded, --json, --flame, --pprof no tree is printed. CMD's stdout goes to stderr.\n"
         "Exit status 1: no such process, no permission, another version, or without poolmalloc; else CMD's own.");
}

static void help_leaks(void)
{
    puts("Usage: poolmalloc leaks [OPTION…] -- CMD [ARG…]\n"
         "Runs CMD, and shows at its end the call stacks of sampled blocks to which no pointer is found: in registers, stacks,\n"
         "data, and blocks that are reached from there.\n\n"
         "  --status N     exit status when there are some; default CMD's own\n"
         "  --rate SIZE    one sample in so many bytes, each larger block; default 1K\n"
         "  --by, --lines, --least, --folded, --json, --flame, --pprof: as of `poolmalloc who`\n"
         "  --help\n\n"
         "Examples:\n"
         "  poolmalloc leaks -- ./program\n"
         "  poolmalloc leaks --status 1 --lines -- ./tests");
}

static int wrong(const wish *w, const char *what, const char *argument)
{
    fprintf(stderr, "poolmalloc: %s: '%s' %s\n", w->name, argument, what);
    return usage_error(w->name);
}

/* NULL: fine; else what is wrong with it. */
static const char *option_take(wish *w, int option, const char *value)
{
    double number;
    switch (option) {
    case 's':
        return number_parse(value, 0.01, 1e6, &w->seconds) ? NULL : "is no number of seconds";
    case 'g':
        w->growth = true;
        if (w->seconds == SECONDS)
            w->seconds = 30;
        return !value || number_parse(value, 0.1, 1e6, &w->seconds) ? NULL : "is no number of seconds";
    case 'r':
        return size_parse(value, value + strlen(value), &w->rate) && w->rate >= KIB ? NULL : "is no size from 1K";
    case 'b':
        w->by = strcmp(value, "size") == 0 ? BY_SIZE : strcmp(value, "thread") == 0 ? BY_THREAD : BY_STACK;
        return w->by != BY_STACK ? NULL : "is neither size nor thread";
    case 'm':
        return number_parse(value, 0, 100, &w->least) ? NULL : "is no percentage";
    case 'e':
        if (!number_parse(value, 1, 255, &number))
            return "is no exit status from 1 to 255";
        w->status = (int)number;
        return NULL;
    case 'p': w->peak = true; return NULL;
    case 'l': w->lines = true; return NULL;
    case 'f': w->folded = true; return NULL;
    case 'j': w->json = true; return NULL;
    case 'F': w->flame = value; return NULL;
    default: w->pprof = value; return NULL;
    }
}

static bool is_number(const char *from)
{
    double n;
    return from && number_parse(from, 0.1, 1e6, &n);
}

/* What follows --growth may be its seconds, when a process id comes before or after that. */
static int options_take(wish *w, int argc, char **argv)
{
    static const struct option options[] = {
        {"seconds", required_argument, NULL, 's'}, {"growth", optional_argument, NULL, 'g'}, {"rate", required_argument, NULL, 'r'},
        {"by", required_argument, NULL, 'b'},      {"least", required_argument, NULL, 'm'},  {"status", required_argument, NULL, 'e'},
        {"at-peak", no_argument, NULL, 'p'},       {"lines", no_argument, NULL, 'l'},        {"folded", no_argument, NULL, 'f'},
        {"json", no_argument, NULL, 'j'},          {"flame", required_argument, NULL, 'F'},  {"pprof", required_argument, NULL, 'P'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    for (int o; (o = getopt_long(argc, argv, "-h", options, NULL)) != -1;) {
        const char *value = optarg, *bad;
        if (o == 'h') {
            (w->leaks ? help_leaks : help)();
            exit(0);
        }
        if (o == '?')
            return option_error(w->name, argv, options);
        if (o == 1) { /* an argument */
            if (w->pid || w->leaks)
                return wrong(w, w->pid ? "is one argument too many" : "comes before --", value);
            if (!pids_find("who", (char *[]){optarg}, 1, &w->pid, 1))
                return EXIT_USAGE;
            continue;
        }
        if (o == 'g' && !value && optind < argc && is_number(argv[optind]) && (w->pid || is_number(argv[optind + 1])))
            value = argv[optind++];
        if ((bad = option_take(w, o, value)) != NULL)
            return wrong(w, bad, value);
    }
    w->command = optind < argc ? argv + optind : NULL;
    w->tree = !w->folded && !w->json && !w->flame && !w->pprof;
    return 0;
}

static int command(wish *w, int argc, char **argv)
{
    int bad = options_take(w, argc, argv);
    if (bad)
        return bad;
    if (w->folded && w->json)
        return wrong(w, "and --json cannot both be printed", "--folded");
    if (w->command && w->pid)
        return wrong(w, "comes together with a process id", w->command[0]);
    if (w->command && w->growth)
        return wrong(w, "is of a running process", "--growth");
    if (w->pid && (w->leaks || w->peak))
        return wrong(w, "is of a command", w->leaks ? "leaks" : "--at-peak");
    if (!w->command && !w->pid) {
        fprintf(stderr, "poolmalloc: %s: no %s is given\n", w->name, w->leaks ? "command" : "process id or command");
        return usage_error(w->name);
    }
    return w->command ? who_command_run(w) : who_process(w);
}

int who_command(int argc, char **argv)
{
    static wish w = {.name = "who", .seconds = SECONDS, .rate = WHO_RATE, .least = 1};
    return command(&w, argc, argv);
}

int leaks_command(int argc, char **argv)
{
    static wish w = {.name = "leaks", .rate = KIB, .least = 1, .leaks = true};
    return command(&w, argc, argv);
}
