/* More large blocks than a process may have mappings for, where each has some of its own: all are to be had, grow and shrink, and keep
 * what is in them. */
#include "check.h"

enum { MANY = 33000, RECORDS_LEAST = 24000, RECORDS_MOST = 25000, SIZE = 300000 };

static char *blocks[MANY];

static void make(int i)
{
    blocks[i] = malloc(SIZE);
    CHECKF(blocks[i] != NULL, "block %d", i);
    *(int *)(void *)blocks[i] = i;
}

static void grow(int i)
{
    char *p = realloc(blocks[i], 2 * SIZE);
    CHECKF(p != NULL && *(int *)(void *)p == i, "block %d", i);
    blocks[i] = p;
}

int main(void)
{
    for (int i = 0; i < MANY; i++) {
        make(i);
        if (i > RECORDS_LEAST && i < RECORDS_MOST) /* about as many as have a record: one of the first ones moves */
            grow(i - RECORDS_LEAST);
    }
    grow(MANY - 1);
    for (int i = 0; i < MANY; i++) {
        CHECK(*(int *)(void *)blocks[i] == i);
        free(blocks[i]);
    }
    return 0;
}
