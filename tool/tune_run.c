/* tune_run.c: runs a command and collects its processes' profiles. May touch the child, its environment, and a folder for the profiles. */
#include "tune_run.h"
#include "ground/config.h"
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the program gets from here on: every request recorded, none refused. */
static bool settings_prepare(const char *folder)
{
    static const char *const hinder[] = {"BLOCK_SIZES", "PREFAULT", "LOCK", "LIMIT", "OVERFLOW", "DISABLE", "PROGRAMS"};
    char value[300], name[40];
    config c;
    for (size_t i = 0; i < sizeof hinder / sizeof *hinder; i++) {
        snprintf(name, sizeof name, "POOLMALLOC_%s", hinder[i]);
        unsetenv(name);
    }
    snprintf(value, sizeof value, "%s/%%p.profile", folder);
    setenv("POOLMALLOC_PROFILE", value, 1);
    return config_load(&c, environ, refuse_setting) == 0;
}

#define LOOKS_A_SECOND 20

/* Until the child ends; on a terminal a line now and then. */
static int child_wait(pid_t pid, const sigset_t *ends, const char *command, void (*look)(pid_t))
{
    static const struct timespec period = {0, 1000000000 / LOOKS_A_SECOND};
    int status = 0;
    for (unsigned looks = 1; waitpid(pid, &status, WNOHANG) == 0; looks++) {
        bool ended = sigtimedwait(ends, NULL, &period) > 0;
        if (look && !ended)
            look(pid);
        if (looks % (10 * LOOKS_A_SECOND) == 0 && isatty(2))
            fprintf(stderr, "poolmalloc: '%s' runs for %u s; Ctrl-C ends it, and what it did until then counts\n", command,
                    looks / LOOKS_A_SECOND);
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Ctrl-C ends the command, and we go on with what it left. */
static int command_wait(char **command, void (*look)(pid_t))
{
    sigset_t ends, mask;
    sigemptyset(&ends);
    sigaddset(&ends, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ends, &mask);
    pid_t pid = fork();
    if (pid == 0) {
        sigprocmask(SIG_SETMASK, &mask, NULL);
        child_exec(command); /* our stdout is for one line alone */
    }
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    int status = pid > 0 ? child_wait(pid, &ends, command[0], look) : EXIT_CANNOT_RUN;
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    if (pid < 0)
        fprintf(stderr, "poolmalloc: tune: no process for '%s': %s\n", command[0], strerror(errno));
    return status;
}

/* By its full path: the command's processes may be elsewhere. With /%p.profile behind it, it must fit a setting. */
#define FOLDER_BYTES 200

static bool folder_make(char folder[FOLDER_BYTES])
{
    const char *place = getenv("TMPDIR");
    char *full = realpath(place && *place ? place : "/tmp", NULL);
    int length = full ? snprintf(folder, FOLDER_BYTES, "%s/poolmalloc-XXXXXX", full) : 0;
    free(full);
    if (full && length >= FOLDER_BYTES)
        errno = ENAMETOOLONG;
    else if (full && mkdtemp(folder))
        return true;
    fprintf(stderr, "poolmalloc: tune: no folder for profiles in TMPDIR: %s\n", strerror(errno));
    return false;
}

/* Reads the profiles in the folder, and removes them and it. */
static void folder_collect(const char *folder, profiles *all)
{
    char path[600];
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        profiles_add(all, path);
        unlink(path);
    }
    if (d)
        closedir(d);
    rmdir(folder);
}

static void tell_end(const char *command, int status)
{
    if (status > 128)
        fprintf(stderr, "poolmalloc: tune: '%s' was ended by signal %d (%s)\n", command, status - 128,
                strsignal(status - 128));
    else if (status)
        fprintf(stderr, "poolmalloc: tune: '%s' ended with exit status %d\n", command, status);
}

int tune_run(char **command, profiles *all, void (*look)(pid_t))
{
    char folder[FOLDER_BYTES];
    if (!folder_make(folder))
        return EXIT_NOT_SO;
    bool good = settings_prepare(folder);
    int status = good ? command_wait(command, look) : EXIT_USAGE;
    folder_collect(folder, all);
    if (all->n == 0 && status == 0) {
        fprintf(stderr,
                "poolmalloc: tune: '%s' left no profile (a static or setuid program, or built with a sanitizer?)\n",
                command[0]);
        return EXIT_NOT_SO;
    }
    if (all->n)
        tell_end(command[0], status);
    return status;
}
