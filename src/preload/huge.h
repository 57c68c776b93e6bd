/* huge.h: Huge pages behind the next allocator's largest blocks, where programs write them full.
 *
 * A block of 25 MiB costs 6,400 page faults, or a few hundred, most of them at its two ends; but one that is written here and there costs
 * what it does not need. So some of what is freed is looked at: where its last 64 pages are in memory, it was full. After two of a doubling
 * that were, new ones get huge pages (a wish: the kernel may have none), but for each eighth, the probe, at whose end one looks again. */
#pragma once

#include "ground/base.h"

/* A block of `usable` bytes that is new, and one that is about to be given back. Any thread; two system calls at most. */
void huge_got(const void *p, size_t usable);
void huge_gone(const void *p, size_t usable);
