/* stat.c: `poolmalloc stat`: how full a process's pools are. May touch it through live.h alone; insight's formats, plot.h, its files. */
#include "live.h"
#include "plot.h"
#include "insight/print.h"
#include "tool.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct wish {
    pid_t pid;                /* 0: none */
    bool print;
    stats_format format;
    double watch;             /* seconds; 0: once */
    const char *plot, *record; /* files, or NULL */
} wish;

static void help(void)
{
    puts("Usage: poolmalloc stat PID [--json|--prometheus] [--watch SECONDS] [--plot FILE.svg] [--record FILE.csv]\n"
         "       poolmalloc stat --record FILE.csv --plot FILE.svg\n"
         "How full the pools of a running process are, read from outside: it is not stopped, and needs no setting.\n\n"
         "  --json           one document, on one line: the same as with POOLMALLOC_STATS=exit\n"
         "  --prometheus     Prometheus' text format\n"
         "  --watch SECONDS  again and again, until the process ends\n"
         "  --plot FILE      draws how full each pool is; without PID, what was recorded, over time\n"
         "  --record FILE    appends a line a pool\n"
         "  --help\n\n"
         "With --plot or --record nothing is printed unless a format is asked for.\n"
         "Exact when no thread of the process allocates meanwhile (busy 0), else within what the busy threads have at hand.\n"
         "Exit status 1: no such process, no permission, another version, or a process without poolmalloc.");
}

static bool seconds_parse(const char *from, double *seconds)
{
    char *end;
    *seconds = strtod(from, &end);
    return end != from && !*end && isfinite(*seconds) && *seconds > 0 && *seconds <= 1e6;
}

static void sleep_for(double seconds)
{
    time_t whole = (time_t)seconds;
    struct timespec t = {whole, (long)((seconds - (double)whole) * 1e9)};
    nanosleep(&t, NULL);
}

int live_error(const char *command, pid_t pid, const live *l, live_result result)
{
    fprintf(stderr, "poolmalloc: %s: process %d ", command, (int)pid);
    if (result == LIVE_OTHER)
        fprintf(stderr, "runs poolmalloc %.15s, layout %u; this tool reads %s, layout %u\n", l->control.version,
                l->control.layout, PM_VERSION, CONTROL_LAYOUT);
    else
        fprintf(stderr, "%s\n", live_explain(result));
    return EXIT_NOT_SO;
}

static int file_error(const char *path, const char *what)
{
    fprintf(stderr, "poolmalloc: stat: %s: %s\n", path, what);
    return EXIT_NOT_SO;
}

/* A picture or record that cannot be written ends the command. */
static void draw(const wish *w, const pm_stats *s)
{
    char command[32];
    command_read(w->pid, command, sizeof command);
    if (w->plot && !plot_pools(w->plot, s, w->pid, command))
        exit(file_error(w->plot, strerror(errno)));
    if (!w->record)
        return;
    FILE *file = fopen(w->record, "ae");
    if (!file || !record_append(file, s) || fclose(file) != 0)
        exit(file_error(w->record, strerror(errno)));
}

static live_result look(live *l, const wish *w)
{
    static pm_stats s;
    live_result result = live_take(l);
    if (result != LIVE_FOUND)
        return result;
    stats_gather_from(&l->view, &s);
    draw(w, &s);
    if (w->print && !stats_write(&l->view, &s, w->format, 1))
        exit(EXIT_NOT_SO); /* who read this has had enough */
    return LIVE_FOUND;
}

static int watch(const wish *w)
{
    static live l;
    live_result result = live_open(&l, w->pid);
    if (result != LIVE_FOUND)
        return live_error("stat", w->pid, &l, result);
    if (l.pagemap < 0)
        fprintf(stderr, "poolmalloc: stat: /proc/%d/pagemap cannot be read: resident bytes count whole slabs\n", (int)w->pid);
    for (result = look(&l, w); result == LIVE_FOUND && w->watch > 0; result = look(&l, w))
        sleep_for(w->watch);
    live_close(&l);
    return result == LIVE_FOUND ? 0 : live_error("stat", w->pid, &l, result);
}

static int draw_record(const wish *w)
{
    const char *wrong = plot_record(w->record, w->plot);
    return wrong ? file_error(w->record, wrong) : 0;
}

static int argument_error(const char *what, const char *argument)
{
    fprintf(stderr, "poolmalloc: stat: '%s' %s\n", argument, what);
    return usage_error("stat");
}

/* Takes the options; false: a bad one, which was said. */
static bool options_take(wish *w, int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},       {"prometheus", no_argument, NULL, 'p'},
        {"watch", required_argument, NULL, 'w'}, {"plot", required_argument, NULL, 's'},
        {"record", required_argument, NULL, 'r'}, {NULL, 0, NULL, 0}};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (o == '?')
            return false;
        if (o == 'w' && !seconds_parse(optarg, &w->watch)) {
            argument_error("is no number of seconds", optarg);
            return false;
        }
        w->plot = o == 's' ? optarg : w->plot;
        w->record = o == 'r' ? optarg : w->record;
        w->print |= o == 'j' || o == 'p';
        w->format = o == 'j' ? FORMAT_JSON : o == 'p' ? FORMAT_PROMETHEUS : w->format;
    }
    w->print |= !w->plot && !w->record;
    return true;
}

int stat_command(int argc, char **argv)
{
    wish w = {.format = FORMAT_TEXT};
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            help();
            return 0;
        }
    if (!options_take(&w, argc, argv))
        return EXIT_USAGE;
    if (optind + 1 < argc)
        return argument_error("is one argument too many", argv[optind + 1]);
    if (optind == argc && w.plot && w.record)
        return draw_record(&w);
    if (optind == argc || !pid_parse(argv[optind], &w.pid))
        return argument_error("is no process id", optind < argc ? argv[optind] : "");
    return watch(&w);
}
