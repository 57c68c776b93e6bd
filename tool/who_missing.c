/* who_missing.c: `poolmalloc who` and `leaks` of a build without what they need. */
#include "tool.h"
#include "who.h"

#include <stdio.h>

#define NEEDS "it was made without libdw, protobuf-c, zlib or a C++ compiler (Debian: libdw-dev libprotobuf-c-dev protobuf-c-compiler zlib1g-dev g++)"

static int left_out(const char *command)
{
    fprintf(stderr, "poolmalloc: %s: left out of this build: " NEEDS "\n", command);
    return EXIT_NOT_SO;
}

int who_command(int argc, char **argv)
{
    (void)argc;
    return left_out(argv[0]);
}

int leaks_command(int argc, char **argv)
{
    (void)argc;
    return left_out(argv[0]);
}

sites *sites_open(pid_t pid, const char **wrong)
{
    (void)pid;
    *wrong = "left out of this build: " NEEDS;
    return NULL;
}

int sites_take(sites *s, site *to, size_t most)
{
    (void)s;
    (void)to;
    (void)most;
    return -1;
}

void sites_close(sites *s) { (void)s; }
