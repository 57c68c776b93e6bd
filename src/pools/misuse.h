/* misuse.h: the one form in which a user's misuse of memory is told, before abort().
 *
 *   poolmalloc: free(0x7f2a4c003040): double free
 *   poolmalloc: block 0x7f2a4c003040 of 64 bytes, pool malloc-64: given back 12 ms ago by thread 4711
 *   poolmalloc: thread 4712 of process 4700, called from 0x401136 0x7f2a51f2a24a */
#pragma once

#include "pools/region.h"

typedef enum { BY_MALLOC, BY_NEW, BY_NEW_ARRAY } maker;

/* How a block was made: a maker; above its two bits, where an alignment was named, that one's logarithm and one. */
typedef uint32_t made;
#define MADE_BITS 7
INLINE made made_aligned(maker by, size_t align)
{
    return (made)by | (made)size_min(64 - (size_t)__builtin_clzl(align | 1), 31) << 2; /* none of more than a GiB lies in our memory */
}
INLINE maker made_by(made m) { return (maker)(m & 3); }
INLINE size_t made_align(made m) { return m >> 2 ? (size_t)1 << ((m >> 2) - 1) : 0; }

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

/* A call that gives a block back: the function, how a block must have been made that it may be given, and which bits of that it goes by.
 * C's functions take blocks of any alignment; delete must name the one that new did. */
typedef uint32_t giving;
INLINE maker maker_of(call c) { return c == CALL_DELETE ? BY_NEW : c == CALL_DELETE_ARRAY ? BY_NEW_ARRAY : BY_MALLOC; }
INLINE giving giving_as(call c, made m, uint32_t bits) { return (giving)c | m << 8 | bits << 16; }
INLINE giving giving_by(call c) { return giving_as(c, maker_of(c), c == CALL_DELETE || c == CALL_DELETE_ARRAY ? (1 << MADE_BITS) - 1 : 3); }
INLINE giving giving_aligned(call c, size_t align) { return giving_as(c, made_aligned(maker_of(c), align), (1 << MADE_BITS) - 1); }
INLINE call giving_call(giving g) { return (call)(g & 0xff); }
INLINE bool giving_fits(giving g, made m) { return ((g >> 8 ^ m) & g >> 16) == 0; }
const char *maker_name(maker m);

typedef enum { BLOCK_UNKNOWN, BLOCK_NEVER, BLOCK_LIVE, BLOCK_FREED } block_state;

/* All that is known; zeros where nothing is. */
typedef struct misuse {
    call call;
    const void *pointer; /* that it was given */
    const char *what;    /* NULL: given back as `said` bytes, or, where that is SIZE_MAX, with an alignment of `said_align` (0: none) */
    size_t said, said_align;
    const void *caller;  /* where it returns to */
    const char *function; /* instead of `call`, where the function is a pool's or an arena's */

    const void *block;   /* the one meant, or nearest; NULL: there is none */
    size_t bytes;        /* of the block; of what was asked for: */
    size_t asked;
    const char *pool;    /* its name; NULL: malloc's pool of that size, or none when the block has its own pages */
    bool own_pages;
    block_state state;
    made made;
    uint32_t freed_by;   /* thread; 0: not known */
    uint32_t freed_ago;  /* ms */
} misuse;

/* What is wrong with giving back by g, as `said` bytes (SIZE_MAX: it does not say), a block of `asked` bytes: false, nothing. */
bool misuse_of_giving(misuse *m, giving g, made how, size_t asked, size_t said);
/* To the file that reports go to, or stderr; allocates nothing, takes no lock, and ends the process. */
void misuse_abort(const misuse *m) __attribute__((noreturn, cold));
/* The same text, and no more. */
void misuse_tell(const misuse *m);
