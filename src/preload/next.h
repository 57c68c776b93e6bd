/* next.h: The next allocator: all of its functions from one library, found once; and the arena that serves
 * what is asked of us while we look for them. */
#ifndef PM_NEXT_H
#define PM_NEXT_H

#include "ground/base.h"

typedef struct next_allocator {
    void *(*malloc)(size_t);
    void (*free)(void *);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*memalign)(size_t, size_t); /* serves all aligned requests */
    size_t (*malloc_usable_size)(void *); /* NULL when it has none */
} next_allocator;

/* All NULL until next_find() is done, then constant. */
extern next_allocator pm_next;

/* Fills pm_next. False: the process has no other malloc. Calls dlsym: with no lock held. */
bool next_find(void);
/* On the first call: one block of 2 MiB is taken and given back. The C library learns from it (its mmap and trim
 * thresholds follow the largest block freed) to keep the top of its heap, which the small blocks that would have pinned
 * it no longer do: without it, twice the time and 28 times the page faults on sizes around 32 KiB. errno is kept. */
void next_prime(void);
/* A function of the next allocator's library by name, or NULL; for what is called seldom. Calls dlsym. */
void *next_function(const char *name);

/* 16-aligned memory from a fixed arena; NULL when that is used up. Never freed. */
void *boot_alloc(size_t size);
bool boot_holds(const void *p);
size_t boot_size(const void *p);

#endif
