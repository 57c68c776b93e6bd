/* tool.h: what the files of the command-line tool share. A command takes its own name as argv[0] and returns an exit status. */
#ifndef PM_TOOL_H
#define PM_TOOL_H

#include "ground/config.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

enum { EXIT_NOT_SO = 1, EXIT_USAGE = 2, EXIT_CANNOT_RUN = 126, EXIT_NOT_FOUND = 127 };

int stat_command(int argc, char **argv);
int top_command(int argc, char **argv);

/* "Try 'poolmalloc COMMAND --help'." Returns EXIT_USAGE. */
int usage_error(const char *command);
bool pid_parse(const char *from, pid_t *pid);
#define LIBRARY_PATH (PATH_MAX + 64)
/* Where the library is; false, with one line, when it is not found. */
bool library_find(bool hardened, char path[LIBRARY_PATH]);
/* Puts the library in front of LD_PRELOAD; false, with one line, when it is not found or cannot be named there. */
bool preload_add(bool hardened);
/* execvp; returns the exit status, with one line, when that fails. */
int command_exec(char **command);
/* Sets the variables that a file names, lines POOLMALLOC_NAME=VALUE with comments after #; false, with one line. */
bool settings_load(const char *path);

/* The effective settings, a line each. */
void config_print(const config *c);
/* Every variable with its default and what it does. */
void config_help(void);

int tune(int argc, char **argv);

#endif
