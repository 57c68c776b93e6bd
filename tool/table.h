/* table.h: pools as a table for people. */
#ifndef PM_TABLE_H
#define PM_TABLE_H

#include "insight/stats.h"

void table_print(const view *v, const pm_stats *s, const char *command);

#endif
