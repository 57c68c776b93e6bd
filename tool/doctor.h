/* doctor.h: what the files of `poolmalloc doctor` share: findings about a program's file, and about a process. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* What was found, a line each: what is well, what stands in the way, what could be better. */
typedef struct findings {
    size_t count, hindrances;
    char *line[64];
} findings;

void find_good(findings *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
void find_bad(findings *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
void find_hint(findings *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
void findings_clear(findings *f);

/* Why a preloaded library could have no say in the program at `path`, which is called `shown`. */
void program_examine(findings *f, const char *path, const char *shown);
/* What an environment, NAME=VALUE strings that end with NULL, says about settings and preloads. `path`: the program's. */
void environment_examine(findings *f, char *const *environment, const char *path);
/* Whether the pools serve a running process, and if not why. */
void process_examine(findings *f, pid_t pid);
