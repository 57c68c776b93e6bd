/* print.h: Statistics as text, JSON or Prometheus' text format; allocates nothing. */
#ifndef PM_PRINT_H
#define PM_PRINT_H

#include "ground/base.h"
#include "ground/config.h"
#include "insight/stats.h"

/* False: fd takes no writes. */
bool stats_write(const view *v, const pm_stats *s, stats_format format, int fd);
/* The calling process's: gathers and writes. False: fd takes no writes. */
bool stats_report_to(int fd, stats_format format);
/* To POOLMALLOC_STATS_FILE, or stderr, as POOLMALLOC_STATS_FORMAT says; nothing when a report is being written. Fit
 * for signal handlers. */
void stats_report(void);
/* A name of whatever bytes, fit to be shown; cut where it does not fit. */
void name_clean(const char *from, char *to, size_t bytes);

#endif
