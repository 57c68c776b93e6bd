/* doctor.c: `poolmalloc doctor`: whether the pools serve a program, why not, and what could be gained. May touch doctor.h's other
 * files, tune's runs and plans, and becomes a parent of CMD. */
#include "doctor.h"

#include "proc.h"
#include "tool.h"
#include "tune_run.h"
#include "words.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void find_add(findings *f, const char *mark, const char *format, va_list arguments)
{
    char *text, *line;
    if (f->count == sizeof f->line / sizeof *f->line || vasprintf(&text, format, arguments) < 0)
        return;
    if (asprintf(&line, "%-5s %s", mark, text) >= 0)
        f->line[f->count++] = line;
    free(text);
}

#define FIND(function, mark, hindrance)                                                                                \
    void function(findings *f, const char *format, ...)                                                                \
    {                                                                                                                  \
        va_list arguments;                                                                                             \
        va_start(arguments, format);                                                                                   \
        find_add(f, mark, format, arguments);                                                                          \
        va_end(arguments);                                                                                             \
        f->hindrances += hindrance;                                                                                    \
    }
FIND(find_good, "ok", 0)
FIND(find_bad, "NOT", 1)
FIND(find_hint, "hint", 0)

void findings_clear(findings *f)
{
    while (f->count > 0)
        free(f->line[--f->count]);
    f->hindrances = 0;
}

/* The verdict last, where a terminal shows it. */
static int findings_print(const findings *f, const char *what)
{
    printf("%s\n", what);
    for (size_t i = 0; i < f->count; i++)
        printf("  %s\n", f->line[i]);
    printf("in force: %s\n", f->hindrances ? "no" : "yes");
    return f->hindrances ? EXIT_NOT_SO : 0;
}

/* ---- of a command ---- */

/* As execvp finds it; NULL: nowhere. */
static char *program_path(const char *command)
{
    const char *set = getenv("PATH");
    char *list = need(strdup(set ? set : "/usr/bin:/bin")), *rest = list, *folder, *path = NULL;
    if (strchr(command, '/'))
        path = access(command, X_OK) == 0 ? strdup(command) : NULL;
    else
        while (!path && (folder = strsep(&rest, ":")) != NULL) {
            if (asprintf(&path, "%s/%s", *folder ? folder : ".", command) >= 0 && access(path, X_OK) == 0)
                continue;
            free(path);
            path = NULL;
        }
    free(list);
    return path;
}

static findings latest;

/* The best look at it is kept: at first its loader works, and in the end its memory goes. */
static void look(pid_t pid)
{
    findings now = {.count = 0};
    process_examine(&now, pid);
    if (latest.count == 0 || now.hindrances == 0 || now.count > latest.count) {
        findings_clear(&latest);
        latest = now;
    } else {
        findings_clear(&now);
    }
}

static void gain_examine(findings *f, const profiles *all)
{
    search *found = search_run(&all->sum, 32 * KIB);
    if (!found)
        return;
    plan usual = plan_default(BLOCK_MAX), best = search_plan(found, search_knee(found));
    waste now = plan_waste(&all->sum, &usual), then = plan_waste(&all->sum, &best);
    uint64_t saved = waste_sum(&now) > waste_sum(&then) ? waste_sum(&now) - waste_sum(&then) : 0;
    find_hint(f, "at the peak %s were asked for; poolmalloc tune would save %s of the %s that the default sizes take beyond it",
              HUMAN_LONG(now.requested), HUMAN_LONG(saved), HUMAN_LONG(waste_sum(&now)));
    if (now.beyond > now.requested)
        find_hint(f, "%s more are in blocks beyond the pools, which the next allocator serves", HUMAN_LONG(now.beyond));
    search_free(found);
}

static int command_run(findings *f, char **command)
{
    static profiles all;
    int status = tune_run(command, &all, look);
    if (all.n == 0 && latest.hindrances == 0) {
        findings_clear(&latest);
        find_bad(&latest, "it left no sign of pools (exit status %d)", status);
    }
    for (size_t i = 0; i < latest.count && f->count < sizeof f->line / sizeof *f->line; i++)
        if (strstr(latest.line[i], "set: POOLMALLOC_PROFILE") == NULL)
            f->line[f->count++] = latest.line[i];
        else
            free(latest.line[i]);
    f->hindrances += all.n > 0 && latest.count == 0 ? 0 : latest.hindrances;
    if (all.n > 0) {
        find_good(f, "%zu process%s recorded what %s asked for", all.n, all.n == 1 ? "" : "es", all.n == 1 ? "it" : "they");
        gain_examine(f, &all);
    }
    profiles_free(&all);
    return status;
}

static int command_examine(char **command)
{
    findings f = {.count = 0};
    char library[LIBRARY_PATH], *path = program_path(command[0]);
    if (!path) {
        fprintf(stderr, "poolmalloc: cannot run '%s': %s\n", command[0], strerror(errno));
        return errno == EACCES ? EXIT_CANNOT_RUN : EXIT_NOT_FOUND;
    }
    if (!library_find(false, library))
        find_bad(&f, "the library is not where this tool looks for it");
    else if (strpbrk(library, " :$"))
        find_bad(&f, "LD_PRELOAD cannot name '%s': a space, colon or $ is in the path", library);
    findings program = {.count = 0};
    program_examine(&program, path, path);
    environment_examine(&program, environ, path);
    bool runs = f.hindrances + program.hindrances == 0;
    if (runs)
        command_run(&f, command); /* which looks at the same, as it runs */
    for (size_t i = 0; !runs && i < program.count && f.count < sizeof f.line / sizeof *f.line; i++)
        f.line[f.count++] = program.line[i];
    f.hindrances += runs ? 0 : program.hindrances;
    free(path);
    return findings_print(&f, command[0]);
}

/* ---- the command ---- */

static int help(void)
{
    puts("Usage: poolmalloc doctor PROCESS…\n"
         "       poolmalloc doctor -- CMD [ARG…]\n"
         "Whether the pools serve a program, and if not why: a static or setuid program, another architecture or C library, a\n"
         "sanitizer, another malloc, a library loaded with RTLD_DEEPBIND, a seccomp filter, a wrong path in LD_PRELOAD, a setting.\n"
         "Of a running process also its settings and what limits it; what could be gained. Where nothing stands in its way, CMD is\n"
         "run to its end as under poolmalloc tune (Ctrl-C ends it), its output on stderr.\n\n"
         "  -h, --help\n\n"
         "Exit status: 0 in force; 1 not; 2 wrong usage; 126, 127 CMD cannot run.\n\n"
         "Examples:\n"
         "  poolmalloc doctor redis-server\n"
         "  poolmalloc doctor -- python3 script.py");
    return 0;
}

int doctor(int argc, char **argv)
{
    static pid_t pids[PIDS_MOST];
    int status = 0;
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
        return help();
    bool command = argc > 1 && strcmp(argv[1], "--") == 0;
    if (argc < 2 + command || (!command && argv[1][0] == '-')) {
        fprintf(stderr, argc < 2 + command ? "poolmalloc: doctor: no process and no command is given\n" : "poolmalloc: doctor: '%s' is no option\n",
                argv[1]);
        return usage_error("doctor");
    }
    if (command)
        return command_examine(argv + 2);
    size_t count = pids_find("doctor", argv + 1, (size_t)argc - 1, pids, PIDS_MOST);
    for (size_t i = 0; i < count; i++) {
        char what[300], arguments[256];
        findings f = {.count = 0};
        process_examine(&f, pids[i]);
        arguments_read(pids[i], arguments, sizeof arguments);
        snprintf(what, sizeof what, "process %d %s", (int)pids[i], arguments);
        status |= findings_print(&f, what);
        findings_clear(&f);
    }
    return count ? status : EXIT_USAGE;
}
