/* base.h: Constants, attributes and small arithmetic that every file may use.
 * The only header, with os.h, that may ask the compiler what machine this is. */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PM_VERSION "0.1.0"

static_assert(sizeof(void *) == 8 && sizeof(size_t) == 8, "64-bit only: names of C++ operators and slab records say so");

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define NOINLINE __attribute__((noinline))
#define COLD __attribute__((noinline, cold))
#define INLINE static inline __attribute__((always_inline))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
/* Zeroed data that few programs ever touch, or that none writes to, apart from what all do: those pages stay out of every
 * process. */
#define RARE __attribute__((section(".sbss")))
#define PM_EXPORT __attribute__((visibility("default")))

/* A reader of words that their one writer changes without a lock (the live view): the value may be old, never torn. */
#define PEEKS __attribute__((no_sanitize("thread"), noinline))

#ifdef __SANITIZE_THREAD__
#define PM_SANITIZED 1
#elif defined(__SANITIZE_ADDRESS__)
#define PM_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define PM_SANITIZED 1
#endif
#endif
#ifndef PM_SANITIZED
#define PM_SANITIZED 0
#endif

/* Probes for perf, bpftrace, systemtap and gdb (provider poolmalloc), on slow paths only: a no-op instruction each. The model
 * test counts how often each was met. */
#ifdef PM_MEET
void pm_meet(const char *what);
#define PROBE(name, a, b) ((void)(a), (void)(b), pm_meet(#name))
#elif defined(PM_PROBES)
#include <sys/sdt.h>
#define PROBE(name, a, b) DTRACE_PROBE2(poolmalloc, name, a, b)
#else
#define PROBE(name, a, b) ((void)0)
#endif

/* The hardened library: the same sources, where it is a constant. */
#ifndef PM_HARDENED
#define PM_HARDENED 0
#endif
/* A shared object in malloc's place, which is never unloaded. */
#ifndef PM_INTERPOSER
#define PM_INTERPOSER 0
#endif

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

/* Blocks are multiples of QUANTUM: the alignment that the x86-64 and AArch64 C ABIs promise for every malloc. */
#define QUANTUM_SHIFT 4
#define QUANTUM ((size_t)1 << QUANTUM_SHIFT)
#define BLOCK_MAX ((size_t)65536) /* the largest block size that a pool may have; larger requests are forwarded */

/* 128 KiB: 64, 128, 256, 512 KiB gave 21, 23, 34, 38 MiB on random sizes to 16,000 bytes; from 128 KiB on, four block
 * sizes a doubling up to 32 KiB leave no tail above 1/8 of a slab. */
#define SLAB_SHIFT 17
#define SLAB_SIZE ((size_t)1 << SLAB_SHIFT)

/* The first page of a slab of the hardened library's, which nobody may touch: what is written before its first block, or past the
 * end of the slab before it, is a fault. */
#define SLAB_GUARD (PM_HARDENED ? 4 * KIB : 0)

/* What the kernel backs with one huge page, and the grain in which such memory is given back. */
#define UNIT_SHIFT 21
#define UNIT_SIZE ((size_t)1 << UNIT_SHIFT)
#define UNIT_SLABS (UNIT_SIZE / SLAB_SIZE)

#define CLASS_MALLOC_MAX 63                 /* size classes that malloc may have */
#define CLASS_NONE 63                       /* the bin that is always empty: sizes beyond the pools point at it */
#define CLASS_MAX 64
#define POOL_BINS 1024                      /* pools of PM_SHARING_THREADS at once: a bin in every heap for each */

/* A free block: its link lies in its own first word. */
typedef struct block {
    struct block *next;
} block;

typedef struct heap heap;
typedef struct slab slab;
typedef struct bin bin;
typedef struct pm_pool pm_pool;

INLINE size_t size_min(size_t a, size_t b) { return a < b ? a : b; }
INLINE size_t size_max(size_t a, size_t b) { return a > b ? a : b; }
INLINE size_t round_up(size_t n, size_t power_of_two) { return (n + power_of_two - 1) & ~(power_of_two - 1); }
INLINE bool is_power_of_two(size_t n) { return n != 0 && (n & (n - 1)) == 0; }

/* Relaxed accesses to plain fields that other threads may read or write at any time: single moves on every target. */
#define LOAD(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#define STORE(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)

/* The same load on the short way of free(), where it may become an operand of the instruction that uses it: gcc 12 never
 * does that to an atomic one. Aligned words are read whole on both targets. */
#if PM_SANITIZED
#define READ(p) LOAD(p)
#else
#define READ(p) (*(p))
#endif
