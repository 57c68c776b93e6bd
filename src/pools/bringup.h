/* bringup.h: from nothing to pools: by the interposer, or by the first call of the C API where there is none. */
#pragma once

#include "pools/alloc.h"

/* Brings the pools up with pm_config; false: there are none, and all is forwarded. Before any other thread runs. */
bool pools_init(void);

/* What is forwarded, by whom and to whom, as the one in front tells it for reports. */
extern uint64_t pm_forwarded_elsewhere; /* calls of threads without a heap */
extern const char *pm_next_name;        /* of the next allocator's file */

NOINLINE bool bringup_now(void);

/* False: there is no address space, or the system refuses. */
INLINE bool bringup_done(void) { return LIKELY(__atomic_load_n(&pm_pools_ready, __ATOMIC_ACQUIRE)) || bringup_now(); }
