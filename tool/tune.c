/* tune.c: `poolmalloc tune`: from profiles to block sizes. May touch tune*.h, ground's settings, stdout for the one line of its result. */
#include "tune.h"
#include "ground/config.h"
#include "tool.h"
#include "tune_run.h"
#include "words.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static int help(void)
{
    puts(
        "Usage: poolmalloc tune [OPTION…] -- CMD [ARG…]\n"
        "       poolmalloc tune [OPTION…] PROFILE…\n"
        "Finds the block sizes that waste least on a run of CMD and of the processes it starts, or on profiles that\n"
        "POOLMALLOC_PROFILE recorded. One line on stdout, POOLMALLOC_BLOCK_SIZES=SIZE:COUNT,…; everything else, CMD's\n"
        "stdout too, goes to stderr. COUNT is what was live at the peak of the largest process, and an eighth more.\n\n"
        "  --pools K      so many block sizes (1 to 63), instead of as many as pay\n"
        "  --max SIZE     the largest block size to consider, to 64K; larger requests are forwarded (32K)\n"
        "  --check FILE   tell what the sizes waste on another profile, too\n"
        "  --plot FILE    draw the request sizes and the block sizes, as SVG\n"
        "  --output FILE  write the line to FILE, too, for poolmalloc run --config FILE\n"
        "  -h, --help\n\n"
        "Exit status: CMD's own; 1 nothing was recorded or written; 2 wrong usage or no profile.\n\n"
        "Examples:\n"
        "  poolmalloc tune --output sizes.conf -- redis-server --port 7777\n"
        "  poolmalloc run --config sizes.conf -- redis-server --port 7777\n"
        "  poolmalloc tune --pools 16 --plot sizes.svg monday.profile tuesday.profile");
    return 0;
}

typedef struct wishes {
    size_t pools, max; /* pools 0: as many as pay */
    const char *check, *plot, *output;
    bool help;
} wishes;

static bool number_of(const char *name, const char *from, size_t least, size_t most, size_t *n)
{
    if (size_parse(from, from + strlen(from), n) && *n >= least && *n <= most)
        return true;
    fprintf(stderr, "poolmalloc: tune: --%s: '%s' is not from %zu to %zu\n", name, from, least, most);
    usage_error("tune");
    return false;
}

static bool wishes_parse(int argc, char **argv, wishes *w)
{
    static const struct option options[] = {{"pools", required_argument, NULL, 'k'},
                                            {"max", required_argument, NULL, 'm'},
                                            {"check", required_argument, NULL, 'c'},
                                            {"plot", required_argument, NULL, 'p'},
                                            {"output", required_argument, NULL, 'o'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    bool good = true;
    for (int o; good && (o = getopt_long(argc, argv, "+h", options, NULL)) != -1;) {
        if (o == 'k')
            good = number_of("pools", optarg, 1, PLAN_POOLS, &w->pools);
        else if (o == 'm')
            good = number_of("max", optarg, QUANTUM, BLOCK_MAX, &w->max);
        else if (o == 'h')
            w->help = true;
        else if (o == '?')
            return option_error("tune", argv, options) == 0;
        else
            *(o == 'c' ? &w->check : o == 'p' ? &w->plot : &w->output) = optarg;
    }
    w->max = round_up(w->max, QUANTUM);
    if (good && w->plot && picture_foreign(w->plot)) {
        fprintf(stderr, "poolmalloc: tune: '%s' cannot be drawn: pictures are SVG, so name it FILE.svg\n", w->plot);
        usage_error("tune");
        return false;
    }
    return good;
}

static bool output_write(const char *path, const char *line)
{
    FILE *to = fopen(path, "we");
    bool good =
        to && fprintf(to, "# Block sizes chosen by poolmalloc tune; for poolmalloc run --config.\n%s\n", line) > 0;
    if (to && fclose(to) == 0 && good)
        return true;
    fprintf(stderr, "poolmalloc: tune: '%s': %s\n", path, strerror(errno));
    return false;
}

/* Everything is known: chooses, tells, writes. Returns 0 or EXIT_NOT_SO. */
static int choose(const profiles *all, const profiles *check, const wishes *w)
{
    char line[1200] = "POOLMALLOC_BLOCK_SIZES=";
    search *found = search_run(&all->sum, w->max);
    if (!found) {
        fprintf(stderr, "poolmalloc: tune: no request of up to %zu bytes is recorded\n", w->max);
        return EXIT_NOT_SO;
    }
    unsigned knee = search_knee(found);
    plan chosen = search_plan(found, w->pools ? (unsigned)size_min(w->pools, found->pools) : knee);
    plan_count(&chosen, all->each, all->n);
    tuning t = {all, found, &chosen, check, w->max, knee};
    tune_report(stderr, &t);
    plan_print(&chosen, line + strlen(line), sizeof line - strlen(line));
    bool good = puts(line) >= 0 && fflush(stdout) == 0;
    good = (!w->output || output_write(w->output, line)) && good;
    good = (!w->plot || tune_plot(w->plot, &t)) && good;
    search_free(found);
    return good ? 0 : EXIT_NOT_SO;
}

static bool profiles_read(char **paths, profiles *all)
{
    for (; *paths; paths++)
        if (!profiles_add(all, *paths))
            return false;
    return true;
}

int tune(int argc, char **argv)
{
    wishes w = {.max = 32 * KIB};
    static profiles all, check;
    int status = 0;
    if (!wishes_parse(argc, argv, &w))
        return EXIT_USAGE;
    if (w.help)
        return help();
    if (!argv[optind]) {
        fprintf(stderr, "poolmalloc: tune: no command and no profile is given\n");
        return usage_error("tune");
    }
    if (w.check && !profiles_add(&check, w.check))
        return EXIT_USAGE;
    if (strcmp(argv[optind - 1], "--") == 0)
        status = tune_run(argv + optind, &all, NULL);
    else if (!profiles_read(argv + optind, &all))
        return EXIT_USAGE;
    int chosen = all.n ? choose(&all, check.n ? &check : NULL, &w) : EXIT_NOT_SO;
    profiles_free(&all);
    profiles_free(&check);
    return status ? status : chosen;
}
