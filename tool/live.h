/* live.h: another process's pools, read from outside through /proc and process_vm_readv. Never stops or writes to it. */
#pragma once

#include "ground/config.h"
#include "insight/stats.h"

#include <sys/types.h>

typedef enum {
    LIVE_FOUND,
    LIVE_NO_PROCESS,
    LIVE_NO_PERMISSION,
    LIVE_NO_POOLS,
    LIVE_EMPTY,    /* no memory of its own */
    LIVE_STARTING, /* the pools are not up yet */
    LIVE_OTHER,    /* another version or layout */
    LIVE_CHANGED,  /* its memory went away meanwhile: it ended, or called exec */
    LIVE_NO_MEMORY, /* of ours */
    LIVE_DAMAGED    /* its samples make no sense */
} live_result;

/* Finds the control page of pid by its magic, of whatever version. */
live_result live_find(pid_t pid, control *found);
/* The same, and that this tool may read it: version and layout are ours, the pools are up. */
live_result live_check(pid_t pid, control *found);
live_result live_read(pid_t pid, const void *from, void *to, size_t bytes);
const char *live_explain(live_result result);

typedef struct buffer {
    void *at;
    size_t bytes;
} buffer;

/* Copies of a process's bookkeeping, and the view that leads to them. */
typedef struct live {
    pid_t pid;
    control control;
    view view;
    region region;
    registry registry;
    depot depot;
    shared_bins shared;
    pool_table pools;
    size_class classes[CLASS_MAX];
    class_count counts[CLASS_MAX];
    uint32_t class_count, class_fixed;
    stats_wish wish;
    char next[64];
    buffer slabs, heaps, slow;
    buffer pages;              /* a uint32_t a slab: pages of it that are in memory */
    struct page_cache *cache;  /* of what peek() has asked for */
    int pagemap;               /* /proc/PID/pagemap, or -1: then a slab that was not purged counts as in memory */
} live;

/* With anything but LIVE_FOUND there is nothing to close. */
live_result live_open(live *l, pid_t pid);
/* Copies anew; a few times, as long as threads allocate meanwhile. */
live_result live_take(live *l);
void live_close(live *l);
/* The figures of one look. */
live_result live_stats(pid_t pid, pm_stats *s);
/* One line on stderr: what is the matter with process pid. Returns the exit status. */
int live_error(const char *command, pid_t pid, const control *c, live_result result);
