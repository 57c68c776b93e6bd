/* memory.c: memory that the tool cannot do without. May touch stderr. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>

void *need(void *p)
{
    if (!p) {
        fprintf(stderr, "poolmalloc: out of memory\n");
        exit(EXIT_NOT_SO);
    }
    return p;
}

void *grown(void *array, size_t count, size_t *room, size_t bytes)
{
    if (count < *room)
        return array;
    *room = 2 * *room + 16;
    return need(realloc(array, *room * bytes));
}
