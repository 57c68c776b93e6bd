/* who.h: POOLMALLOC_WHO and `poolmalloc who`: samples of who allocated what is in use.
 *
 * While it is on, sizes are hidden (learn.h): every call of malloc comes to a slow path, and one request in so many bytes is
 * sampled: its address, size, registers, and the top of its stack, which another process unwinds. Its block is one of heap 0's, so
 * that its free, alone, comes to a slow path too; until then the sample stays, unless it is thinned out: when many are held, the rate
 * doubles, and one after the other goes or stands for twice as much. No lock that anyone waits for, no unwinder, nothing that allocates. */
#pragma once

#include "ground/os.h"

#define WHO_MAGIC "pm-who"
#define WHO_RATE (32 * KIB)  /* bytes between two samples, when nobody says */
#define WHO_RECORDS 8192     /* samples at most; fewer where there is no address space */
#define WHO_RECORD (16 * KIB)
#define WHO_PLACES 4         /* in the table of addresses, for each record */
#define WHO_LINE 8           /* places where a block's address may be: one line */
#define WHO_BUSY 1u          /* in the place of an address: being written */

/* The word by which it is asked for: from outside this is all that is ever written. Rate in KiB, and when to end if nobody
 * writes it anew, in ms of CLOCK_MONOTONIC; 0: never. */
#define WHO_RATE_BITS 24
INLINE uint64_t who_word(size_t rate, uint64_t end)
{
    return (end << WHO_RATE_BITS) | size_max(1, size_min(rate / KIB, ((size_t)1 << WHO_RATE_BITS) - 1));
}
INLINE uint64_t who_word_end(uint64_t word) { return word >> WHO_RATE_BITS; }
INLINE size_t who_word_rate(uint64_t word) { return (word & (((size_t)1 << WHO_RATE_BITS) - 1)) * KIB; }

/* A record; its stack follows, from the address in registers.sp on. */
typedef struct who_sample {
    uint64_t number; /* 1, 2, 3 …; of all samples taken; 0: being written */
    uint64_t block;  /* its address */
    uint64_t size;   /* bytes asked for */
    uint64_t weight; /* bytes that it stands for: the step that it ended, or its size; grows when others go; atomic */
    uint64_t when;   /* ms of CLOCK_MONOTONIC */
    uint32_t thread, stack_bytes;
    os_registers registers;
    uint32_t next;   /* of the free records, 1 + its number, or 0 */
} who_sample;
static_assert(sizeof(who_sample) <= 256, "the rest of a record is stack");
#define WHO_STACK (WHO_RECORD - sizeof(who_sample))

/* In memory of its own. Behind it, at 4 KiB: the places, WHO_PLACES a record: 0, WHO_BUSY, or the address of a sampled block
 * (released when its record is whole). Then as many numbers of records; the records. Counters are atomic, relaxed. */
typedef struct who_table {
    char magic[8];
    uint32_t layout;   /* sizeof(who_sample) */
    uint32_t records;    /* a power of two */
    uint64_t bytes;      /* of all of it */
    uint64_t records_at; /* from its beginning */
    uint64_t began;    /* ms; when this sampling was begun; 0: off */
    uint64_t free;     /* first free record, 1 + its number, in the low half; changes of it in the high one */
    uint32_t used;     /* records that have ever been */
    uint32_t pid;      /* whose it is: the child of a fork has a copy */
    uint64_t pages;    /* that records in use take, of 4 KiB */
    uint64_t taken;
    uint64_t missed;   /* bytes: no record was free */
    int64_t writers;   /* threads that are at it */
    int64_t tokens;    /* samples that may be taken before the rate falls */
    uint64_t refilled; /* ms; when tokens were added last */
    uint32_t shift;    /* of the rate, for as long as this sampling goes on */
    uint32_t thinned;  /* lines of places that were looked through since it grew last */
} who_table;
static_assert(sizeof(who_table) <= 4 * KIB, "");

INLINE uint64_t *who_places(const who_table *t) { return (uint64_t *)((char *)t + 4 * KIB); }
INLINE uint32_t *who_numbers(const who_table *t) { return (uint32_t *)(who_places(t) + (size_t)t->records * WHO_PLACES); }
#define WHO_FRONT(records) (4 * KIB + (size_t)(records) * WHO_PLACES * (sizeof(uint64_t) + sizeof(uint32_t)))
INLINE who_sample *who_record(const who_table *t, size_t i) { return (who_sample *)((char *)t + t->records_at + i * WHO_RECORD); }

INLINE uint32_t who_number(const who_table *t, const who_sample *s)
{
    return (uint32_t)(((uintptr_t)s - (uintptr_t)t - t->records_at) / WHO_RECORD);
}

/* Makes pm_who_start possible; at start, before the pools are up. */
void who_init(void);
