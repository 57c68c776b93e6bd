/* tune.h: what the files of `poolmalloc tune` share. */
#pragma once

#include "tune_plan.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* The profile of one process. */
typedef struct process_profile {
    char program[64];
    uint32_t pid;
    uint64_t calls;
} process_profile;

/* All that were read, and their sum. demands and processes go together. */
typedef struct profiles {
    size_t n, room;
    process_profile *process;
    demand *each;
    demand sum;
} profiles;

/* Adds the profile in file `path`; false, with one line, when it cannot be read or is none. */
bool profiles_add(profiles *all, const char *path);
void profiles_free(profiles *all);

/* What was asked for, in groups of sizes: what the histogram and the plot show. */
typedef struct group {
    uint32_t above, to;     /* bytes: sizes above + 1 … to */
    uint64_t bytes, blocks; /* live at the peak */
} group;
#define GROUPS_MAX 48
/* Four a doubling; returns how many, without those beyond the largest size in use. */
size_t groups_make(const demand *d, group *groups);

/* The sizes of the default table up to `max`. */
plan plan_default(size_t max);

/* The tables, to `to`. */
typedef struct tuning {
    const profiles *all;
    const search *found;
    const plan *chosen;
    const profiles *check; /* NULL: none */
    size_t max;
    unsigned knee;
} tuning;
void tune_report(FILE *to, const tuning *t);
/* The histogram with the chosen sizes as SVG; false, with one line, when the file cannot be written. */
bool tune_plot(const char *path, const tuning *t);
