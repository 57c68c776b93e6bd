/* top.h: what the files of `poolmalloc top` share: what is on the screen. */
#pragma once

#include "live.h"
#include "processes.h"
#include "who.h"

#define SITES 5

typedef struct screen {
    double period;     /* seconds between two looks */
    double looked;     /* when the last one was; 0: never */
    int key;           /* what is sorted by: the key that was pressed */
    bool reversed;     /* the smallest first */
    bool arguments;    /* the list shows command lines */
    bool help;         /* the keys are on the screen */
    char filter[32];   /* only processes or pools with this in their name; "": all */
    bool typing;       /* ... it is being typed */
    pid_t pid;         /* the one process in depth; 0: the list */
    bool only;         /* ... was asked for on the command line: there is no list to go back to */
    processes all;
    size_t shown;      /* processes, or pools, that the filter lets through; of processes the first so many of `all` */
    size_t chosen;     /* line of the list, and which process stands there: it stays chosen when the order changes */
    pid_t chosen_pid;
    size_t first;      /* pool at the top of the screen */
    live one;
    bool open, ended;  /* the copy is open; the process is no more, and the last figures stay */
    pm_stats now, before;
    double passed;     /* seconds between the two */
    char command[32];
    bool shows_sites;  /* of the process: the call stacks that hold most, above the keys */
    sites *sites;      /* NULL: not open; why not says sites_wrong */
    const char *sites_wrong;
    site site[SITES];
    int site_count;
} screen;

void top_draw(screen *s);
void top_colours(void);
void list_choose(screen *s, size_t wanted);
/* Lines of processes or pools that fit. */
size_t top_lines(const screen *s);
