/* report.h: where reports of this process go. */
#pragma once

#include "insight/print.h"

/* With the settings loaded, if there may be reports. */
void report_start(void);
/* Gathers and writes; waits while another thread does. False: fd takes no writes. */
bool stats_report_to(int fd, stats_format format);
/* To POOLMALLOC_STATS_FILE, or stderr, as POOLMALLOC_STATS_FORMAT says; nothing when a report is being written. Fit
 * for signal handlers. */
void stats_report(void);
