/* huge.h: Huge pages behind the next allocator's largest blocks, where programs write them full.
 *
 * A block of 25 MiB costs 6,400 page faults, or 12 and a few hundred; but one that is written here and there costs what it does not
 * need. So what is freed is looked at: where its last 64 pages are in memory, which never get huge ones, it was full. After two of a
 * doubling that were, and until one was not, blocks of it get huge pages (a wish: the kernel may have none). */
#ifndef PM_HUGE_H
#define PM_HUGE_H

#include "ground/base.h"

/* A block of `usable` bytes that is new, and one that is about to be given back. Any thread; two system calls at most. */
void huge_got(void *p, size_t usable);
void huge_gone(const void *p, size_t usable);

#endif
