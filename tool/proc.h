/* proc.h: what /proc tells of a process. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* /proc/PID/FILE, to read; NULL: errno says why not. */
FILE *proc_open(pid_t pid, const char *file);
/* Its first `bytes` - 1 bytes, and a zero; how many. */
size_t proc_read(pid_t pid, const char *file, char *to, size_t bytes);
/* The file of its program; "": not known. */
void program_read(pid_t pid, char to[PATH_MAX]);
/* The name of its program, fit to be shown. */
void command_read(pid_t pid, char *command, size_t bytes);
/* Its command line, for a screen. */
void arguments_read(pid_t pid, char *to, size_t bytes);

/* A line of /proc/PID/maps. */
typedef struct mapping {
    uintptr_t start, end;
    char rights[8]; /* "rw-p" */
    uint64_t offset, inode;
    char path[PATH_MAX + 16]; /* "": anonymous; or "[heap]" and the like */
} mapping;

/* False: that was the last one. */
bool mapping_next(FILE *maps, mapping *m);
