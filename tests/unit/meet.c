/* meet.c: see meet.h. */
#include "meet.h"

#include "ground/base.h"

#include <string.h>

static struct {
    const char *what;
    uint64_t times;
} meetings[64];

void pm_meet(const char *what)
{
    for (size_t i = 0; i < sizeof meetings / sizeof *meetings; i++) {
        const char *none = NULL;
        __atomic_compare_exchange_n(&meetings[i].what, &none, what, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
        if (strcmp(LOAD(&meetings[i].what), what) == 0) {
            __atomic_fetch_add(&meetings[i].times, 1, __ATOMIC_RELAXED);
            return;
        }
    }
}

uint64_t meetings_with(const char *probe)
{
    uint64_t times = 0;
    for (size_t i = 0; i < sizeof meetings / sizeof *meetings && meetings[i].what; i++)
        if (strcmp(meetings[i].what, probe) == 0)
            times += LOAD(&meetings[i].times);
    return times;
}
