/* poolmalloc.c: the command-line tool: one function a command. May touch all of tool/ and ground's settings. */
#include "pools/class.h"
#include "ground/config.h"
#include "ground/text.h"
#include "live.h"
#include "tool.h"
#include "words.h"

#include <ctype.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int usage_error(const char *command)
{
    fprintf(stderr, "Try 'poolmalloc %s%s--help'.\n", command, *command ? " " : "");
    return EXIT_USAGE;
}

static bool help_asked(const char *word) { return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0; }

typedef struct setting {
    const char *variable, *help, *kind;
} setting;

static const setting settings[] = {
#define OPTION(name, field, kind, fallback, help) {"POOLMALLOC_" #name, help, #kind},
#include "ground/options.def"
#undef OPTION
};
#define SETTINGS (sizeof settings / sizeof *settings)

int option_error(const char *command, char **argv, const struct option *options)
{
    const char *names[64], *given = argv[optind - 1], *nearest = NULL;
    size_t count = 0;
    for (; count < 64 && options[count].name; count++)
        names[count] = options[count].name;
    if (strncmp(given, "--", 2) == 0 && !strchr(given, '=') && optopt == 0)
        nearest = word_nearest(given + 2, names, count);
    if (nearest)
        fprintf(stderr, "Did you mean '--%s'? ", nearest);
    return usage_error(command);
}

/* Nothing is used instead where nothing runs. */
void refuse_setting(const char *line)
{
    const char *instead = strstr(line, "; using ");
    report("%.*s", (int)(instead ? (size_t)(instead - line) : strlen(line)), line);
}

/* ---- run ---- */

static bool is_flag(const setting *s) { return strcmp(s->kind, "flag") == 0; }

/* POOLMALLOC_BLOCK_SIZES is --block-sizes. */
static const char *long_name(const setting *s)
{
    char *name = strdup(s->variable + strlen("POOLMALLOC_"));
    for (char *c = name; c && *c; c++)
        *c = (char)(*c == '_' ? '-' : tolower((unsigned char)*c));
    return name;
}

static void help_run(void)
{
    puts("Usage: poolmalloc run [OPTION…] [--] CMD [ARG…]\n"
         "Runs CMD on pools: the library goes in front of LD_PRELOAD, what is there already stays.\n"
         "A bad setting is refused with exit status 2 before CMD starts. Options set the variables of the same name:\n");
    for (size_t i = 0; i < SETTINGS; i++) {
        char values[100] = "";
        option_values(settings[i].help, values, sizeof values);
        printf("  --%s%s%s\n", long_name(&settings[i]), is_flag(&settings[i]) ? "" : " ", is_flag(&settings[i]) ? "" : values);
        option_explain(settings[i].help);
    }
    puts("  --hardened\n      the library with the memory-safety checks in\n"
         "  --config FILE\n      settings from a file: lines POOLMALLOC_NAME=VALUE, comments after #\n  -h, --help\n\n"
         "Examples:\n"
         "  poolmalloc run --stats exit -- sqlite3 shop.db .dump\n"
         "  poolmalloc run --block-sizes 48:100000,4096 --prefault -- ./server\n"
         "  poolmalloc run --limit 512M --overflow fail --hardened -- ./server");
}

/* Counts are for this program, not for every child of it. */
static void programs_limit(const config *c, const char *command)
{
    bool counts = false;
    for (uint32_t i = 0; i < c->sizes.length; i++)
        counts |= c->sizes.at[i].count != 0;
    if (counts && !*c->programs)
        setenv("POOLMALLOC_PROGRAMS", last_part(command), 1);
}

static int run(int argc, char **argv)
{
    struct option options[SETTINGS + 4];
    memset(options, 0, sizeof options);
    for (size_t i = 0; i < SETTINGS; i++)
        options[i] = (struct option){long_name(&settings[i]), is_flag(&settings[i]) ? no_argument : required_argument, NULL, (int)i + 256};
    options[SETTINGS] = (struct option){"hardened", no_argument, NULL, 'H'};
    options[SETTINGS + 1] = (struct option){"help", no_argument, NULL, 'h'};
    options[SETTINGS + 2] = (struct option){"config", required_argument, NULL, 'c'};
    bool hardened = false;
    for (int o; (o = getopt_long(argc, argv, "+h", options, NULL)) != -1;) {
        if (o == 'h') {
            help_run();
            return 0;
        }
        if (o == '?')
            return option_error("run", argv, options);
        if (o == 'c' && !settings_load(optarg))
            return usage_error("run");
        if (o == 'H')
            hardened = true;
        else if (o != 'c')
            setenv(settings[o - 256].variable, optarg ? optarg : "1", 1);
    }
    config c;
    if (config_load(&c, environ, refuse_setting))
        return EXIT_USAGE;
    if (!argv[optind]) {
        fprintf(stderr, "poolmalloc: run: no command is given\n");
        return usage_error("run");
    }
    programs_limit(&c, argv[optind]);
    return preload_add(hardened) ? command_exec(argv + optind) : EXIT_NOT_SO;
}

/* ---- config ---- */

static void print_classes(const config *c)
{
    classes_init(&c->sizes);
    printf("\n%10s %15s %12s %16s %14s\n", "block size", "blocks per slab", "unused tail", "blocks in a bin", "pre-allocated");
    for (uint32_t i = 0; i < pm_class_count; i++) {
        const size_class *k = &pm_classes[i];
        printf("%10u %15u %12zu %16u %14u\n", k->size, k->per_slab, SLAB_SIZE - (size_t)k->size * k->per_slab, k->limit,
               c->sizes.at[i].count);
    }
    printf("sizes in bytes; a slab is %zu\n", SLAB_SIZE);
}

/* The sizes of a process, those that it has learned in their places. */
static void print_learned(const view *v)
{
    static pm_stats s;
    const char *before = "POOLMALLOC_BLOCK_SIZES=";
    stats_gather_from(v, &s);
    for (const pm_stats_row *r = s.row; r < s.row + v->class_count; r++, before = ",")
        printf("%s%zu", before, r->block_size);
    putchar('\n');
}

static int config_learned(char **process)
{
    static live l;
    pid_t pid;
    if (pids_find("config", process, 1, &pid, 1) == 0)
        return EXIT_USAGE;
    live_result result = live_open(&l, pid);
    if (result == LIVE_FOUND)
        result = live_take(&l);
    if (result != LIVE_FOUND)
        return live_error("config", pid, &l.control, result);
    bool any = l.view.class_count > l.view.class_fixed;
    if (any)
        print_learned(&l.view);
    else
        fprintf(stderr, "poolmalloc: config: process %d has learned no block sizes\n", (int)pid);
    live_close(&l);
    return any ? 0 : EXIT_NOT_SO;
}

static int config_command(int argc, char **argv)
{
    config c;
    if (argc > 1 && help_asked(argv[1])) {
        puts("Usage: poolmalloc config\n       poolmalloc config --learned PROCESS\n"
             "Prints the effective settings and the table of block sizes; exit status 2 when one is bad.\n\n"
             "  --learned PROCESS  the block sizes of a running process (a process id, or a name), with those it has learned, as one\n"
             "                     line to set; exit status 1 when it has learned none\n");
        config_help();
        puts("\nExamples:\n  poolmalloc config\n  POOLMALLOC_BLOCK_SIZES=48,200:1000 poolmalloc config\n"
             "  poolmalloc config --learned redis-server");
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "--learned") == 0)
        return config_learned(argv + 2);
    if (argc > 1) {
        if (strcmp(argv[1], "--learned") == 0)
            fprintf(stderr, "poolmalloc: config: --learned takes one process\n");
        else
            fprintf(stderr, "poolmalloc: config: takes no argument '%s'\n", argv[1]);
        return usage_error("config");
    }
    unsigned bad = config_load(&c, environ, NULL);
    config_print(&c);
    print_classes(&c);
    return bad ? EXIT_USAGE : 0;
}

/* ---- active ---- */

static int active_tell(pid_t pid)
{
    control c;
    live_result result = live_find(pid, &c);
    printf("%d: %s", (int)pid, live_explain(result));
    if (result == LIVE_FOUND)
        printf(", poolmalloc %.15s", c.version);
    putchar('\n');
    return result == LIVE_FOUND ? 0 : EXIT_NOT_SO;
}

static int active(int argc, char **argv)
{
    pid_t pids[PIDS_MOST];
    if (argc > 1 && help_asked(argv[1])) {
        puts("Usage: poolmalloc active [PROCESS…]\nWhether processes run on pools (PROCESS is a process id, or a name); without any, whether\n"
             "a program started here would (LD_PRELOAD is set, and works). Exit status 0: all do; 1: one does not. Why not:\n"
             "poolmalloc doctor.\n\nExamples:\n  poolmalloc active redis-server\n  poolmalloc run -- poolmalloc active");
        return 0;
    }
    if (argc == 1)
        return active_tell(getpid());
    int status = 0;
    size_t count = pids_find("active", argv + 1, (size_t)argc - 1, pids, PIDS_MOST);
    for (size_t i = 0; i < count; i++)
        status |= active_tell(pids[i]);
    return count ? status : EXIT_USAGE;
}

/* ---- main ---- */

static const struct {
    const char *name, *what;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"run", "run a program on pools", run},
    {"tune", "find the block sizes that waste least on a program", tune},
    {"config", "check and print the settings and block sizes", config_command},
    {"active", "whether a process runs on pools", active},
    {"doctor", "whether pools serve a program, why not, what could be gained", doctor},
    {"stat", "how full the pools of a running process are", stat_command},
    {"top", "the same, live, on the whole screen", top_command},
    {"who", "which call stacks hold the memory of a process or command", who_command},
    {"leaks", "what a command leaves to which nobody points", leaks_command},
};
#define COMMANDS (sizeof commands / sizeof *commands)

static int help(void)
{
    puts("Usage: poolmalloc COMMAND [OPTION…]\nMemory pools behind malloc: run programs on them, see how full they are.\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].what);
    puts("  help     what a command does: help COMMAND, or COMMAND --help\n\n  -V, --version; -h, --help\n"
         "Exit status: 0 done; 1 the thing asked is not so; 2 wrong usage or setting; 126, 127 CMD cannot run; else CMD's own.\n\n"
         "Examples:\n"
         "  poolmalloc run --stats exit -- sqlite3 :memory: 'select 1'\n"
         "  poolmalloc stat redis-server\n"
         "  poolmalloc tune --output sizes.conf -- ./server");
    return 0;
}

static int command_run(int argc, char **argv)
{
    const char *names[COMMANDS];
    char called[32]; /* what getopt_long begins its lines with */
    for (size_t i = 0; i < COMMANDS; i++) {
        names[i] = commands[i].name;
        if (strcmp(argv[0], names[i]) == 0) {
            snprintf(called, sizeof called, "poolmalloc: %s", names[i]);
            argv[0] = called;
            return commands[i].run(argc, argv);
        }
    }
    const char *nearest = word_nearest(argv[0], names, COMMANDS);
    fprintf(stderr, "poolmalloc: '%s' is no command", argv[0]);
    fprintf(stderr, nearest ? "; did you mean '%s'?\n" : "\n", nearest);
    return usage_error("");
}

static int tool(int argc, char **argv)
{
    static char asked[] = "--help";
    char *of_command[] = {argc > 2 ? argv[2] : NULL, asked, NULL};
    if (argc < 2) {
        fprintf(stderr, "poolmalloc: no command is given\n");
        return usage_error("");
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        return puts("poolmalloc " PM_VERSION) < 0;
    bool help_command = strcmp(argv[1], "help") == 0;
    if (help_asked(argv[1]) || (help_command && argc == 2))
        return help();
    return help_command ? command_run(2, of_command) : command_run(argc - 1, argv + 1);
}

int main(int argc, char **argv) { return stdout_close(tool(argc, argv)); }
