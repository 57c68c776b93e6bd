/* next.h: The next allocator: all of its functions from one library, found once; and the arena that serves
 * what is asked of us while we look for them. */
#pragma once

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
extern next_allocator pm_next __attribute__((visibility("hidden")));

/* Fills pm_next, and makes it ready for its first call if wanted. False: the process has no other malloc. Calls dlsym: with no lock
 * held. */
bool next_find(bool make_ready);
/* From so many bytes on, up to 32 MiB, the C library maps each block by itself and unmaps it when it is freed; twice as much at the
 * top of its heap goes back too. Nothing where another allocator is the next one, or somebody tunes it himself. */
void next_map_from(size_t bytes);
/* All threads share so many heaps of the C library's, under the same conditions. */
void next_arenas_most(unsigned n);
extern bool pm_next_tuned; /* by the environment, or by mallopt */
/* A function of the next allocator's library by name, or NULL; for what is called seldom. Calls dlsym. */
void *next_function(const char *name);

#define BOOT_BYTES (64 * KIB)
extern char boot_arena[BOOT_BYTES];

/* 16-aligned memory from a fixed arena; NULL when that is used up. Never freed. */
void *boot_alloc(size_t size);
INLINE bool boot_holds(const void *p) { return (uintptr_t)p - (uintptr_t)boot_arena < BOOT_BYTES; }
size_t boot_size(const void *p);
