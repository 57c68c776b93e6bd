/* tool.h: what the files of the command-line tool share. A command takes its own name as argv[0] and returns an exit status. */
#pragma once

#include "ground/config.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

enum { EXIT_NOT_SO = 1, EXIT_USAGE = 2, EXIT_CANNOT_RUN = 126, EXIT_NOT_FOUND = 127 };

int stat_command(int argc, char **argv);
int top_command(int argc, char **argv);
int who_command(int argc, char **argv);
int leaks_command(int argc, char **argv);

/* p; with one line the tool ends when that is NULL: no memory. */
void *need(void *p);
/* A growing array with room for one more than `count` of so many bytes. */
void *grown(void *array, size_t count, size_t *room, size_t bytes);
/* "Try 'poolmalloc COMMAND --help'." Returns EXIT_USAGE. */
int usage_error(const char *command);
struct option;
/* The same after getopt_long found a bad option, with the one that may have been meant. */
int option_error(const char *command, char **argv, const struct option *options);
/* A bad setting, as the settings' parser tells it, without what is used instead: for commands that do not go on then. */
void refuse_setting(const char *line);
bool pid_parse(const char *from, pid_t *pid);
#define PIDS_MOST 256
/* The processes that `words` name, by number or by name (then those on pools, or all, when none is); 0 after one line. */
size_t pids_find(const char *command, char **words, size_t count, pid_t *pids, size_t room);
#define LIBRARY_PATH (PATH_MAX + 64)
/* Where the library is; false, with one line, when it is not found. */
bool library_find(bool hardened, char path[LIBRARY_PATH]);
/* Puts the library in front of LD_PRELOAD; false, with one line, when it is not found or cannot be named there. */
bool preload_add(bool hardened);
/* execvp; returns the exit status, with one line, when that fails. */
int command_exec(char **command);
/* The same in a child, under the library, its stdout on stderr. */
_Noreturn void child_exec(char **command);
/* Sets the variables that a file names, lines POOLMALLOC_NAME=VALUE with comments after #; false, with one line. */
bool settings_load(const char *path);

/* The effective settings, a line each. */
void config_print(const config *c);
/* What an option's text in options.def says: what it is, then each value, indented. */
void option_explain(const char *help);
/* "auto|always|never", or "VALUE" where they are no fixed words. */
void option_values(const char *help, char *to, size_t room);
/* Every variable with its default and what it does. */
void config_help(void);

int tune(int argc, char **argv);
int doctor(int argc, char **argv);
