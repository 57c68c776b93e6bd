/* stat.c: `poolmalloc stat`: how full the pools of a running process are. */
#include "live.h"
#include "print.h"
#include "tool.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct wish {
    pid_t pid;
    stats_format format;
    double watch; /* seconds; 0: once */
} wish;

static void help(void)
{
    puts("Usage: poolmalloc stat PID [--json|--prometheus] [--watch SECONDS]\n"
         "How full the pools of a running process are, read from outside: it is not stopped, and needs no setting.\n\n"
         "  --json           one document, on one line: the same as with POOLMALLOC_STATS=exit\n"
         "  --prometheus     Prometheus' text format\n"
         "  --watch SECONDS  again and again, until the process ends\n"
         "  --help\n\n"
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

static live_result print_once(live *l, const wish *w)
{
    static pm_stats s;
    live_result result = live_take(l);
    if (result != LIVE_FOUND)
        return result;
    stats_gather_from(&l->view, &s);
    if (!stats_write(&l->view, &s, w->format, 1))
        exit(EXIT_NOT_SO); /* who read this has had enough */
    return LIVE_FOUND;
}

static int stat_print(const wish *w)
{
    static live l;
    live_result result = live_open(&l, w->pid);
    if (result != LIVE_FOUND)
        return live_error("stat", w->pid, &l, result);
    if (l.pagemap < 0)
        fprintf(stderr, "poolmalloc: stat: /proc/%d/pagemap cannot be read: resident bytes count whole slabs\n", (int)w->pid);
    for (result = print_once(&l, w); result == LIVE_FOUND && w->watch > 0; result = print_once(&l, w))
        sleep_for(w->watch);
    live_close(&l);
    return result == LIVE_FOUND ? 0 : live_error("stat", w->pid, &l, result);
}

static int argument_error(const char *what, const char *argument)
{
    fprintf(stderr, "poolmalloc: stat: '%s' %s\n", argument, what);
    return usage_error("stat");
}

int stat_command(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"prometheus", no_argument, NULL, 'p'},
                                            {"watch", required_argument, NULL, 'w'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    wish w = {0, FORMAT_TEXT, 0};
    for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (o == 'h') {
            help();
            return 0;
        }
        if (o == '?')
            return usage_error("stat");
        if (o == 'w' && !seconds_parse(optarg, &w.watch))
            return argument_error("is no number of seconds", optarg);
        if (o == 'j' || o == 'p')
            w.format = o == 'j' ? FORMAT_JSON : FORMAT_PROMETHEUS;
    }
    if (optind + 1 < argc)
        return argument_error("is one argument too many", argv[optind + 1]);
    if (optind == argc || !pid_parse(argv[optind], &w.pid))
        return argument_error("is no process id", optind < argc ? argv[optind] : "");
    return stat_print(&w);
}
