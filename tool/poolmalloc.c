/* poolmalloc.c: the command-line tool: one function a command. May touch all of tool/ and ground's settings. */
#include "pools/class.h"
#include "ground/config.h"
#include "live.h"
#include "tool.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void complain(const char *line) { fprintf(stderr, "poolmalloc: %s\n", line); }

int usage_error(const char *command)
{
    fprintf(stderr, "Try 'poolmalloc %s%s--help'.\n", command, *command ? " " : "");
    return EXIT_USAGE;
}

/* ---- run ---- */

typedef struct setting {
    const char *variable, *help, *kind;
} setting;

static const setting settings[] = {
#define OPTION(name, field, kind, fallback, help) {"POOLMALLOC_" #name, help, #kind},
#include "ground/options.def"
#undef OPTION
};
#define SETTINGS (sizeof settings / sizeof *settings)

static bool is_flag(const setting *s) { return strcmp(s->kind, "flag") == 0; }

/* POOLMALLOC_BLOCK_SIZES is --block-sizes. */
static const char *long_name(const setting *s)
{
    char *name = strdup(s->variable + strlen("POOLMALLOC_"));
    for (char *c = name; c && *c; c++)
        *c = *c == '_' ? '-' : (char)tolower((unsigned char)*c);
    return name;
}

static void help_run(void)
{
    puts("Usage: poolmalloc run [OPTION…] [--] CMD [ARG…]\n"
         "Runs CMD on pools: the library goes in front of LD_PRELOAD, what is there already stays.\n"
         "A bad setting is refused with exit status 2 before CMD starts. Options set the variables of the same name:\n");
    for (size_t i = 0; i < SETTINGS; i++)
        printf("  --%s%s\n      %s\n", long_name(&settings[i]), is_flag(&settings[i]) ? "" : " VALUE", settings[i].help);
    puts("  --hardened\n      the library with the memory-safety checks in\n"
         "  --config FILE\n      settings from a file: lines POOLMALLOC_NAME=VALUE, comments after #\n  --help");
}

/* Counts are for this program, not for every child of it. */
static void programs_limit(const config *c, const char *command)
{
    bool counts = false;
    for (uint32_t i = 0; i < c->sizes.length; i++)
        counts |= c->sizes.at[i].count != 0;
    const char *slash = strrchr(command, '/');
    if (counts && !*c->programs)
        setenv("POOLMALLOC_PROGRAMS", slash ? slash + 1 : command, 1);
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
        if (o == '?' || (o == 'c' && !settings_load(optarg)))
            return usage_error("run");
        if (o == 'H')
            hardened = true;
        else if (o != 'c')
            setenv(settings[o - 256].variable, optarg ? optarg : "1", 1);
    }
    config c;
    config_default(&c);
    if (config_load(&c, environ, true, complain))
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

static int config_command(int argc, char **argv)
{
    config c;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("Usage: poolmalloc config\nPrints the effective settings and the table of block sizes; exit status 2 when one is bad.\n");
        config_help();
        return 0;
    }
    if (argc > 1) {
        fprintf(stderr, "poolmalloc: config: takes no argument '%s'\n", argv[1]);
        return usage_error("config");
    }
    config_default(&c);
    unsigned bad = config_load(&c, environ, true, complain);
    config_print(&c);
    print_classes(&c);
    return bad ? EXIT_USAGE : 0;
}

/* ---- active ---- */

bool pid_parse(const char *from, pid_t *pid)
{
    char *end;
    errno = 0;
    long n = strtol(from, &end, 10);
    if (errno || end == from || *end || n <= 0 || n > INT_MAX)
        return false;
    *pid = (pid_t)n;
    return true;
}

static int active(int argc, char **argv)
{
    pid_t pid = getpid();
    control c;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        puts("Usage: poolmalloc active [PID]\nWhether process PID runs on pools; without PID, whether a program started here\n"
             "would (LD_PRELOAD is set, and works). Exit status 0: yes; 1: no.");
        return 0;
    }
    if (argc > 2 || (argc == 2 && !pid_parse(argv[1], &pid))) {
        fprintf(stderr, "poolmalloc: active: '%s' is no process id\n", argv[argc - 1]);
        return usage_error("active");
    }
    live_result result = live_find(pid, &c);
    printf("%d: %s", (int)pid, live_explain(result));
    if (result == LIVE_FOUND)
        printf(", poolmalloc %.15s", c.version);
    putchar('\n');
    return result == LIVE_FOUND ? 0 : EXIT_NOT_SO;
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
    {"stat", "how full the pools of a running process are", stat_command},
    {"top", "the same, live, on the whole screen", top_command},
};
#define COMMANDS (sizeof commands / sizeof *commands)

static int help(void)
{
    puts("Usage: poolmalloc COMMAND [OPTION…]\nMemory pools behind malloc: run programs on them, see how full they are.\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].what);
    puts("\n  --version, --help; COMMAND --help tells more.\n"
         "Exit status: 0 done; 1 the thing asked is not so; 2 wrong usage or setting; 126, 127 CMD cannot run; else CMD's own.");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "poolmalloc: no command is given\n");
        return usage_error("");
    }
    if (strcmp(argv[1], "--version") == 0)
        return puts("poolmalloc " PM_VERSION) < 0;
    if (strcmp(argv[1], "--help") == 0)
        return help();
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "poolmalloc: '%s' is no command\n", argv[1]);
    return usage_error("");
}
