/* profile.h: POOLMALLOC_PROFILE: how often each size is asked for, and how many of each were live at the
 * program's peak. Every call is on the slow path then, and every request up to BLOCK_MAX is served by a pool.
 *
 * The profile is a file, mapped and shared from the start, so that it is whole whatever ends the process. Every process
 * has one of its own: a child of fork begins an empty one with its first allocation, and counts what it allocates
 * itself. A program that is exec'd in the same process goes on in its file: calls add up, the greater peak stays. */
#pragma once

#include "ground/base.h"

#define PROFILE_MAGIC "poolmalloc-size"
#define PROFILE_VERSION 2u
#define PROFILE_SIZES (BLOCK_MAX / QUANTUM)
#define PROFILE_LARGE PROFILE_SIZES /* the row of all larger requests */
#define PROFILE_ROWS (PROFILE_SIZES + 1)

/* Requests of 16 i + 1 … 16 i + 16 bytes (row 0: of none, too). */
typedef struct profile_row {
    uint64_t calls; /* that asked for such a size and got it; a realloc is one, wherever the block ends up */
    uint64_t live;
    uint64_t most;   /* the greatest that live was */
    uint64_t held;   /* what live was at the peak, when `moment` is the file's; else live is what it was then */
    uint64_t moment; /* the file's moment when the row was last changed */
} profile_row;

/* All numbers in the byte order of the machine. The peak is the first time at which live_bytes was greatest: exact,
 * because a row puts by what it was then before it changes, and a new peak only counts `moment` up. */
typedef struct profile_head {
    char magic[16];
    uint32_t version, rows, quantum, pid;
    uint64_t started;                /* when the process began, in the kernel's ticks: with pid, whose the file is */
    uint64_t live_bytes, peak_bytes; /* requested, without the large row */
    uint64_t moment;                 /* peaks so far */
    char program[64];
} profile_head;

typedef struct profile_file {
    profile_head head;
    profile_row row[PROFILE_ROWS];
} profile_file;
static_assert(sizeof(profile_head) == 128 && sizeof(profile_row) == 40, "the file's layout is its format");

INLINE uint64_t profile_at_peak(const profile_file *f, size_t row)
{
    return f->row[row].moment == f->head.moment ? f->row[row].held : f->row[row].live;
}

/* Begins the profile that pm_config asks for, and raises its block sizes to BLOCK_MAX. One line when there cannot be
 * one. */
void profile_init(void);
