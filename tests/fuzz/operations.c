/* operations.c: two bytes an operation: take, fill and release blocks of any class in any order; the pools are checked
 * after every run. */
#include "../unit/start.h"

#include <string.h>

#define SLOTS 64

static struct {
    unsigned char *p;
    size_t size;
    unsigned char fill;
} slots[SLOTS];

static void release(unsigned i)
{
    for (size_t at = 0; at < slots[i].size; at++)
        if (slots[i].p[at] != slots[i].fill)
            abort();
    free_block(slots[i].p);
    slots[i].p = NULL;
}

static void take(unsigned i, unsigned what)
{
    slots[i].size = (size_t)what * what / 2 + 1;
    slots[i].fill = (unsigned char)(i + what);
    slots[i].p = take_class(class_of(slots[i].size));
    if (!slots[i].p)
        abort();
    memset(slots[i].p, slots[i].fill, slots[i].size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char *settings[] = {NULL};
    if (!pm_pools_ready)
        pools_start(settings);
    for (size_t at = 0; at + 1 < size; at += 2) {
        unsigned i = data[at] % SLOTS;
        if (slots[i].p)
            release(i);
        else
            take(i, data[at + 1]);
        if (data[at] == 255)
            pools_trim();
    }
    for (unsigned i = 0; i < SLOTS; i++)
        if (slots[i].p)
            release(i);
    pools_check();
    return 0;
}
