/* print.h: Statistics as text, JSON or Prometheus' text format; allocates nothing. */
#pragma once

#include "ground/base.h"
#include "ground/config.h"
#include "insight/stats.h"

/* Of s the totals and malloc's rows; the explicit pools, however many, are asked of v. False: fd takes no writes. */
bool stats_write(const view *v, const pm_stats *s, stats_format format, int fd);
