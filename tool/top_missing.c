/* top_missing.c: `poolmalloc top` of a build without ncurses. May touch tool.h and stderr. */
#include "tool.h"

#include <stdio.h>

int top_command(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    fprintf(stderr, "poolmalloc: top: left out of this build: it was made without ncurses (Debian: libncurses-dev)\n");
    return EXIT_NOT_SO;
}
