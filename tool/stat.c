/* stat.c: `poolmalloc stat`: how full the pools of running processes are. May touch live.h, plot.h, insight's print, stdout. */
#include "live.h"
#include "plot.h"
#include "proc.h"
#include "insight/print.h"
#include "tool.h"
#include "words.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct wish {
    pid_t pids[PIDS_MOST];
    size_t count;
    bool print, people;        /* at all; as a table with sizes in K, M, G */
    int chosen;                /* the format's option, or 0 */
    stats_format format;
    double watch;              /* seconds; 0: once */
    const char *plot, *record; /* files, or NULL */
    size_t samples;            /* recorded so far */
} wish;

static void help(void)
{
    puts("Usage: poolmalloc stat PROCESS… [--json|--prometheus|--bytes] [--watch SECONDS] [--plot FILE.svg] [--record FILE.csv]\n"
         "       poolmalloc stat --record FILE.csv --plot FILE.svg\n"
         "How full the pools of running processes are, read from outside: they are not stopped, and need no setting. PROCESS is\n"
         "a process id, or a name: then all on pools that have it.\n\n"
         "  --json           one document a process, on one line: the same as with POOLMALLOC_STATS=exit\n"
         "  --prometheus     Prometheus' text format, of one process\n"
         "  --bytes          the table with all sizes in bytes\n"
         "  --watch SECONDS  again and again, until the processes end\n"
         "  --plot FILE.svg  draws how full each pool is; without PROCESS, what was recorded, over time\n"
         "  --record FILE    appends a line a pool to a table (CSV)\n"
         "  -h, --help\n\n"
         "With --plot or --record nothing is printed unless a format is asked for.\n"
         "Exact when no thread of the process allocates meanwhile (busy 0), else within what the busy threads have at hand.\n"
         "Exit status 1: no such process, no permission, another version, or a process without poolmalloc.\n\n"
         "Examples:\n"
         "  poolmalloc stat redis-server\n"
         "  poolmalloc stat 4711 --json | jq .totals\n"
         "  poolmalloc stat redis-server --record pools.csv --watch 1\n"
         "  poolmalloc stat --record pools.csv --plot pools.svg");
}

static void sleep_for(double seconds)
{
    time_t whole = (time_t)seconds;
    struct timespec t = {whole, (long)((seconds - (double)whole) * 1e9)};
    nanosleep(&t, NULL);
}

int live_error(const char *command, pid_t pid, const control *c, live_result result)
{
    fprintf(stderr, "poolmalloc: %s: process %d", command, (int)pid);
    if (result == LIVE_OTHER)
        fprintf(stderr, " runs poolmalloc %.15s, layout %u; this tool reads %s, layout %u\n", c->version,
                c->layout, PM_VERSION, CONTROL_LAYOUT);
    else
        fprintf(stderr, ": %s\n", live_explain(result));
    return EXIT_NOT_SO;
}

static int file_error(const char *path, const char *what)
{
    fprintf(stderr, "poolmalloc: stat: %s: %s\n", path, what);
    return EXIT_NOT_SO;
}

/* A picture or record that cannot be written ends the command. */
static void draw(wish *w, const live *l, const pm_stats *s)
{
    char command[32];
    command_read(l->pid, command, sizeof command);
    if (w->plot && !plot_pools(w->plot, s, l->pid, command))
        exit(file_error(w->plot, strerror(errno)));
    if (!w->record)
        return;
    FILE *file = fopen(w->record, "ae");
    if (!file || !record_append(file, s) || fclose(file) != 0)
        exit(file_error(w->record, strerror(errno)));
    if (isatty(2) && w->watch > 0 && !w->print)
        fprintf(stderr, "\r%zu samples in %s; Ctrl-C ends ", ++w->samples, w->record);
}

static const char *size_say(size_t bytes, bool column, char to[24])
{
    return column ? human((double)bytes, to, 24) : human_long((double)bytes, to, 24);
}

static bool print(const wish *w, live *l, const pm_stats *s)
{
    static char command[32];
    command_read(l->pid, command, sizeof command);
    l->view.title = w->people ? command : NULL;
    l->view.say = w->people ? size_say : NULL;
    return stats_write(&l->view, s, w->format, 1);
}

static live_result look(live *l, wish *w)
{
    static pm_stats s;
    live_result result = live_take(l);
    if (result != LIVE_FOUND)
        return result;
    stats_gather_from(&l->view, &s);
    draw(w, l, &s);
    if (w->print && !print(w, l, &s))
        exit(file_error("standard output", errno ? strerror(errno) : "cannot be written"));
    return LIVE_FOUND;
}

static bool is_end(live_result result) { return result == LIVE_CHANGED || result == LIVE_NO_PROCESS || result == LIVE_EMPTY; }

/* One look at each; those that end while they are watched leave the list. Returns the exit status. */
static int look_all(live *all, wish *w)
{
    for (size_t i = 0; i < w->count;) {
        live_result result = look(&all[i], w);
        if (result == LIVE_FOUND) {
            i++;
            continue;
        }
        if (!(w->watch > 0 && is_end(result)))
            return live_error("stat", all[i].pid, &all[i].control, result);
        live_close(&all[i]);
        memmove(&all[i], &all[i + 1], (--w->count - i) * sizeof *all); /* the next look fills each view anew */
    }
    return 0;
}

static int watch(wish *w)
{
    live *all = calloc(w->count, sizeof *all);
    for (size_t i = 0; all && i < w->count; i++) {
        live_result result = live_open(&all[i], w->pids[i]);
        if (result != LIVE_FOUND)
            return live_error("stat", w->pids[i], &all[i].control, result);
        if (all[i].pagemap < 0)
            fprintf(stderr, "poolmalloc: stat: /proc/%d/pagemap cannot be read: resident bytes count whole slabs\n", (int)w->pids[i]);
    }
    int status = all ? look_all(all, w) : EXIT_NOT_SO;
    while (status == 0 && w->watch > 0 && w->count > 0) {
        sleep_for(w->watch);
        status = look_all(all, w);
    }
    for (size_t i = 0; status == 0 && i < w->count; i++)
        live_close(&all[i]);
    free(all);
    if (w->samples)
        fputc('\n', stderr);
    return status;
}

static int draw_record(const wish *w)
{
    const char *wrong = plot_record(w->record, w->plot);
    return wrong ? file_error(w->record, wrong) : 0;
}

static bool refuse(const char *argument, const char *what)
{
    fprintf(stderr, "poolmalloc: stat: '%s' %s\n", argument, what);
    usage_error("stat");
    return false;
}

/* False: it does not go with what was asked for, which was said. */
static bool format_take(wish *w, int option)
{
    if (w->chosen && w->chosen != option)
        return refuse("--json, --prometheus, --bytes", "are formats, of which one can be written at a time");
    w->chosen = option;
    w->print = true;
    w->people = false;
    w->format = option == 'j' ? FORMAT_JSON : option == 'p' ? FORMAT_PROMETHEUS : FORMAT_TEXT;
    return true;
}

static bool option_take(wish *w, int option)
{
    switch (option) {
    case 'w': return number_parse(optarg, 1e-9, 1e6, &w->watch) || refuse(optarg, "is no number of seconds");
    case 's': w->plot = optarg; return !picture_foreign(optarg) || refuse(optarg, "cannot be drawn: pictures are SVG, so name it FILE.svg");
    case 'r': w->record = optarg; return true;
    case 'h': help(); exit(stdout_close(0));
    default: return format_take(w, option);
    }
}

static bool options_take(wish *w, int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},       {"prometheus", no_argument, NULL, 'p'},    {"bytes", no_argument, NULL, 'b'},
        {"watch", required_argument, NULL, 'w'}, {"plot", required_argument, NULL, 's'},   {"record", required_argument, NULL, 'r'},
        {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0}};
    bool good = true;
    for (int o; good && (o = getopt_long(argc, argv, "h", options, NULL)) != -1;)
        good = o == '?' ? option_error("stat", argv, options) == 0 : option_take(w, o);
    w->print |= !w->plot && !w->record;
    return good;
}

int stat_command(int argc, char **argv)
{
    static wish w = {.format = FORMAT_TEXT, .people = true};
    if (!options_take(&w, argc, argv))
        return EXIT_USAGE;
    if (optind == argc && w.plot && w.record)
        return draw_record(&w);
    if (optind == argc) {
        fprintf(stderr, "poolmalloc: stat: no process is given\n");
        return usage_error("stat");
    }
    w.count = pids_find("stat", argv + optind, (size_t)(argc - optind), w.pids, PIDS_MOST);
    if (w.count == 0)
        return EXIT_USAGE;
    if (w.count > 1 && (w.format == FORMAT_PROMETHEUS || w.plot || w.record)) {
        fprintf(stderr, "poolmalloc: stat: --prometheus, --plot and --record are of one process, and these are %zu\n", w.count);
        return usage_error("stat");
    }
    return watch(&w);
}
