/* unwind.h: from a copy of a stack to names, with elfutils' libdw. */
#pragma once

#include "insight/who.h"

#include <sys/types.h>

#define FRAMES_MOST 256

/* A function, or an address in a file where no name is known. Fit to be shown. */
typedef struct frame_name {
    char *text;
    bool known;   /* it is a name */
    bool of_library; /* poolmalloc's own */
    uint32_t number;
} frame_name;

typedef struct unwinder unwinder;

/* NULL: no memory, or libdw refuses. Lines: names tell file and line, where debug information does. */
unwinder *unwinder_open(pid_t pid, bool lines);
/* The files of the process are looked up anew: while it lives, and may have loaded more. */
void unwinder_refresh(unwinder *u);
/* Names by number, innermost first, without poolmalloc's own; inlined functions are frames too. `cut`: the stack goes on
 * beyond the copy, or cannot be followed further. */
size_t unwinder_walk(unwinder *u, const who_sample *s, const void *stack, uint32_t *names, size_t most, bool *cut);
const frame_name *unwinder_name(const unwinder *u, uint32_t number);
uint32_t unwinder_intern(unwinder *u, const char *from); /* a name of the caller's */
size_t unwinder_unnamed(const unwinder *u);              /* files without any symbol that were come across */
void unwinder_close(unwinder *u);

/* A C++ name as it was written, or NULL: it is none. From malloc. */
char *demangle(const char *name);
