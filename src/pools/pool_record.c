/* pool_record.c: see pool_record.h. */
#include "pools/pool_record.h"

pool_table pm_pools RARE;
