/* One misuse of memory a case, and what the hardened library makes of it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define LARGE 262144 /* what no pool serves */

/* A case does its misuse to a block of `size` bytes, and says whether that had its effect: false, when it came to nothing (the
 * block that was freed did not come back; what was written is gone). Being stopped by a signal is the third way it may end.
 *
 * `small` (8 and 4,096 bytes) and `large` are what is expected of the hardened library: "nothing", or the signal and a part of
 * the report's first line. A case with `once` has no size. */
typedef struct misuse {
    const char *name;
    bool (*run)(size_t size);
    const char *small, *large;
    bool once;
} misuse;

/* `program --list`: a line a case; `program NAME SIZE`: exit status 0 when the misuse had its effect, 1 when it came to
 * nothing, 2 for wrong usage. */
#ifdef __cplusplus
extern "C"
#endif
int misuse_main(const misuse *cases, size_t count, int argc, char **argv);

/* Hides from the compiler what is known of a pointer. */
static inline char *opaque(void *p)
{
    __asm__ volatile("" : "+r"(p) : : "memory");
    return (char *)p;
}
