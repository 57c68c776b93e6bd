/* ending.h: what misuse of memory still shows at the end of a program of the plain library, whose short ways look for none: free blocks in
 * two places at once, or that are none; links in them that were written to; bytes that were written to and belong to no block in use. */
#pragma once

#include "pools/heap.h"

/* Reads, and changes nothing; a report and abort at the first. The calling thread's bins, and the region's first slabs: bounded, and
 * a page fault or two for each of those. */
void ending_check(void);
