/* Contents that a block must keep: each block is filled from its own seed, so that a block handed out
 * twice, moved wrongly, or written by a neighbour is seen when it is verified. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct { uint64_t state; } Random;

/* splitmix64: one multiplication chain, any seed is good. */
static inline uint64_t random_next(Random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline size_t random_below(Random *random, size_t bound)
{
    return (size_t)(random_next(random) % bound);
}

static inline unsigned char pattern_byte(uint64_t seed, size_t at)
{
    return (unsigned char)((seed >> (8 * (at & 7))) + at / 8);
}

static inline uint64_t pattern_mix(uint64_t seed)
{
    return (seed + 1) * 0x9e3779b97f4a7c15u;
}

/* Every byte from `begin` to `end`. */
static inline void pattern_fill_range(void *block, size_t begin, size_t end, uint64_t seed)
{
    unsigned char *bytes = (unsigned char *)block;
    for (size_t i = begin; i < end; i++)
        bytes[i] = pattern_byte(pattern_mix(seed), i);
}

static inline bool pattern_holds_range(const void *block, size_t begin, size_t end, uint64_t seed)
{
    const unsigned char *bytes = (const unsigned char *)block;
    for (size_t i = begin; i < end; i++)
        if (bytes[i] != pattern_byte(pattern_mix(seed), i))
            return false;
    return true;
}

static inline void pattern_fill(void *block, size_t size, uint64_t seed)
{
    pattern_fill_range(block, 0, size, seed);
}

static inline bool pattern_holds(const void *block, size_t size, uint64_t seed)
{
    return pattern_holds_range(block, 0, size, seed);
}

/* Large blocks in long runs: both ends whole, and eight bytes of every 512 between them. */
enum { PATTERN_END = 64, PATTERN_STEP = 512 };

static inline void pattern_stamp(void *block, size_t size, uint64_t seed)
{
    size_t end = size < PATTERN_END ? size : PATTERN_END;
    pattern_fill_range(block, 0, end, seed);
    for (size_t at = PATTERN_STEP; at + PATTERN_END < size; at += PATTERN_STEP)
        pattern_fill_range(block, at, at + 8, seed);
    pattern_fill_range(block, size - end, size, seed);
}

/* `kept` bytes of a block stamped when it was `size` bytes: what realloc must carry over. */
static inline bool pattern_stamped(const void *block, size_t size, size_t kept, uint64_t seed)
{
    size_t end = size < PATTERN_END ? size : PATTERN_END;
    if (!pattern_holds_range(block, 0, end < kept ? end : kept, seed))
        return false;
    for (size_t at = PATTERN_STEP; at + PATTERN_END < size && at + 8 <= kept; at += PATTERN_STEP)
        if (!pattern_holds_range(block, at, at + 8, seed))
            return false;
    return kept < size || pattern_holds_range(block, size - end, size, seed);
}

static inline bool all_zero(const void *block, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)block;
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}
