/* start.h: brings the pools of core.a up inside a test. */
#pragma once

#include "ground/config.h"
#include "ground/os.h"
#include "pools/bringup.h"
#include "pools/depot.h"
#include "pools/fork.h"
#include "pools/threads.h"
#include "explicit/pool.h"
#include "insight/report.h"

#include <stdio.h>
#include <stdlib.h>

static inline void *take_class(unsigned c) { return alloc_slow(c, pm_classes[c].size); }
static inline void *take_zeroed(unsigned c) { return alloc_zeroed(c, pm_classes[c].size); }

/* `settings` as in an environment, NULL-terminated. */
static inline void pools_start(char *const *settings)
{
    if (config_load(&pm_config, settings, NULL) || !pools_init()) {
        fprintf(stderr, "the pools do not come up\n");
        exit(1);
    }
    classes_align();
}
