/* main.c: See cases.h. */
#include "cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int list(const misuse *cases, size_t count)
{
    for (const misuse *m = cases; m < cases + count; m++)
        printf("%s\t%s\t%s\t%d\n", m->name, m->small, m->large, m->once);
    return 0;
}

int misuse_main(const misuse *cases, size_t count, int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0)
        return list(cases, count);
    for (const misuse *m = cases; argc == 3 && m < cases + count; m++)
        if (strcmp(m->name, argv[1]) == 0)
            return !m->run((size_t)atol(argv[2]));
    fprintf(stderr, "usage: %s --list | NAME SIZE\n", argv[0]);
    return 2;
}
