/* guard.h: blocks on pages of their own, between pages that nobody may touch: the end of the block lies at a guard, and when it is
 * given back its pages stay closed for a while. The hardened library's large blocks, and POOLMALLOC_GUARD's samples.
 *
 *   guard | canary, block, canary | guard          the canaries: what rounding leaves, below 16 bytes behind the block */
#pragma once

#include "pools/heap.h"
#include "pools/misuse.h"

#define GUARD_CLOSED 256            /* blocks that were given back and stay closed, at most */
#define GUARD_CLOSED_BYTES (1 * GIB) /* of address space; an eighth of what the process may have, where that is less */
#define GUARD_RECORDS 24576         /* two mappings each, of the 65,530 that a process may have: slabs and the program need some too */

extern bool pm_guarding; /* there are such blocks, or were: pointers that are no pool's may be theirs */

/* At start, when pm_config is known. */
void guard_init(void);
/* Zeroed; align a power of two. NULL: no memory, no mapping left. */
void *guard_alloc(size_t size, size_t align, made how, const void *caller);
/* False: none of these. Misuse is told, and ends the process. size: SIZE_MAX, or what the caller says it has. */
bool guard_free(void *p, giving g, size_t size, const void *caller);
/* Bytes asked for, or SIZE_MAX: none of these. A block that was given back is told. */
size_t guard_size(const void *p, call c, const void *caller);
/* A block of another size with the contents of p, which is one of these and is given back; NULL: p is as it was. */
void *guard_realloc(void *p, size_t size, const void *caller);
/* Memory is short: closed blocks end; false: there are none. On a slow path. */
bool guard_shed(void);
/* Looks at the canaries of all of them. */
void guard_check(call c);
/* The hardened library: SIGSEGV on a guard or a closed page is told from now on, if the program does not handle it; then it happens again.
 * other: says what it knows of an address that is none of these; false: nothing. */
void guard_watch(bool (*other)(const void *at, misuse *m));

/* ---- POOLMALLOC_GUARD ---- */

/* On a slow path that hands out `blocks`: is the next one to be a sample? SIGSEGV on a guard or a closed page is told, from the
 * first one on, before the program's own handler gets it. */
bool guard_due(size_t blocks);
