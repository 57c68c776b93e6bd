/* stats.h: layer 13. What the pools hold, as numbers and as text. Reads only: other threads go on meanwhile. */
#ifndef PM_STATS_H
#define PM_STATS_H

#include "base.h"
#include "config.h"

#include <poolmalloc.h>

/* Process-wide counts of calls forwarded by threads without a heap. */
extern uint64_t pm_forwarded_elsewhere;
/* Name of the next allocator's file, for reports. */
extern const char *pm_next_name;

void stats_gather(pm_stats *s);
bool stats_write(const pm_stats *s, uint32_t pid, const char *next, stats_format format, int fd);
/* Gathers and writes. False: fd takes no writes. */
bool stats_report_to(int fd, stats_format format);
/* To POOLMALLOC_STATS_FILE, or stderr, as POOLMALLOC_STATS_FORMAT says; nothing when a report is being written. Fit
 * for signal handlers. */
void stats_report(void);

#endif
