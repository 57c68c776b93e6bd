/* plot.h: pools as pictures (SVG), and the samples that pictures over time are drawn from (CSV). */
#pragma once

#include "insight/stats.h"

#include <stdio.h>
#include <sys/types.h>

/* How full each pool is, a bar each. False: the file cannot be written. */
bool plot_pools(const char *path, const pm_stats *s, pid_t pid, const char *command);
/* One line a pool that holds slabs, after a header where the file is new. */
bool record_append(FILE *file, const pm_stats *s);
/* What was recorded, drawn over time. NULL, or what is wrong with which file. */
const char *plot_record(const char *record, const char *path);
