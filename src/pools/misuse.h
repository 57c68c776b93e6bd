/* misuse.h: the one form in which a user's misuse of memory is told, before abort().
 *
 *   poolmalloc: free(0x7f2a4c003040): double free
 *   poolmalloc: block 0x7f2a4c003040 of 64 bytes, pool malloc-64: given back 12 ms ago by thread 4711
 *   poolmalloc: thread 4712 of process 4700, called from 0x401136 0x7f2a51f2a24a */
#ifndef PM_MISUSE_H
#define PM_MISUSE_H

#include "pools/region.h"

/* What a block was made by, and what goes with it. */
typedef enum { BY_MALLOC, BY_NEW, BY_NEW_ARRAY } maker;

/* The functions that are told what they were given: the name, and the maker whose blocks they take. */
typedef enum {
    CALL_FREE,
    CALL_FREE_SIZED,
    CALL_DELETE,
    CALL_DELETE_ARRAY,
    CALL_REALLOC,
    CALL_USABLE_SIZE,
    CALL_MALLOC, /* and all that make blocks */
    CALL_CHECK,
    CALL_EXIT,
    CALL_ACCESS /* no call: a read or a write */
} call;

/* Two bits a call: shifts, where each free would branch. */
INLINE maker maker_of(call c) { return (maker)((BY_NEW << 2 * CALL_DELETE | BY_NEW_ARRAY << 2 * CALL_DELETE_ARRAY) >> 2 * c & 3); }
const char *maker_name(maker m);

typedef enum { BLOCK_UNKNOWN, BLOCK_NEVER, BLOCK_LIVE, BLOCK_FREED } block_state;

/* All that is known; zeros where nothing is. */
typedef struct misuse {
    call call;
    const void *pointer; /* that it was given */
    const char *what;    /* NULL: given back as `said` bytes */
    size_t said;
    const void *caller;  /* where it returns to */
    const char *function; /* instead of `call`, where the function is a pool's or an arena's */

    const void *block;   /* the one meant, or nearest; NULL: there is none */
    size_t bytes;        /* of the block; of what was asked for: */
    size_t asked;
    const char *pool;    /* its name; NULL: malloc's pool of that size, or none when the block has its own pages */
    bool own_pages;
    block_state state;
    maker made_by;
    uint32_t freed_by;   /* thread; 0: not known */
    uint32_t freed_ago;  /* ms */
} misuse;

/* What is wrong with giving back by c, as `said` bytes (SIZE_MAX: it does not say), a block of `asked` bytes made by `by`: false,
 * nothing. */
bool misuse_of_call(misuse *m, call c, maker by, size_t asked, size_t said);
/* To the file that reports go to, or stderr; allocates nothing, takes no lock, and ends the process. */
void misuse_abort(const misuse *m) __attribute__((noreturn, cold));
/* The same text, and no more. */
void misuse_tell(const misuse *m);

#endif
