/* seams.c: see seams.h. */
#include "pools/seams.h"

#define WATCHERS 4

const guests *pm_guests;
bool pm_every_call_slow, pm_watching;
static bool all_watched;
const storer *pm_storer;
uint64_t pm_asked;
void *pm_samples;
uint8_t pm_sample_marks[SAMPLE_MARKS] RARE;
static const watcher *watchers[WATCHERS + 1]; /* constant once the pools are up; ends with NULL */

void guests_register(const guests *g) { __atomic_store_n(&pm_guests, g, __ATOMIC_RELEASE); }

void watch_register(const watcher *w, bool all)
{
    int i = 0;
    while (watchers[i] && watchers[i] != w)
        i++;
    if (i == WATCHERS) /* a mistake of ours */
        __builtin_trap();
    watchers[i] = w;
    pm_watching = all_watched |= all;
    pm_every_call_slow |= all;
}

void *watch_alloc(void *p, size_t size)
{
    for (const watcher **w = watchers; p && *w; w++)
        if ((*w)->alloc)
            p = (*w)->alloc(p, size);
    return p;
}

void watch_free(const void *p, size_t usable)
{
    for (const watcher **w = watchers; *w; w++)
        if ((*w)->free)
            (*w)->free(p, usable);
}

void watch_resize(const void *p, size_t size)
{
    for (const watcher **w = watchers; *w; w++)
        if ((*w)->resize)
            (*w)->resize(p, size);
}

size_t watch_usable(const void *p, size_t most)
{
    for (const watcher **w = watchers; *w; w++)
        if ((*w)->usable)
            most = (*w)->usable(p, most);
    return most;
}

void watch_hidden(bool hidden) { STORE(&pm_watching, hidden || all_watched); }
