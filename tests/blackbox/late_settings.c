/* Changes the environment after the start, in every way a program can: the library must have copied what it reads.
 * Argument: a path that POOLMALLOC_STATS_FILE must not move to. */
#define _GNU_SOURCE
#include <stdlib.h>

#include "check.h"

extern char **environ;

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    for (char **entry = environ; *entry != NULL; entry++) /* setproctitle and its like overwrite the strings */
        if (strncmp(*entry, "POOLMALLOC", 10) == 0)
            memset(*entry, 'z', strlen(*entry));
    CHECK(clearenv() == 0);
    CHECK(setenv("POOLMALLOC_STATS_FILE", argv[1], 1) == 0);
    CHECK(setenv("POOLMALLOC_DISABLE", "1", 1) == 0);
    for (size_t size = 1; size < 70000; size += 31)
        free(malloc(size));
    return 0;
}
