/* bringup.h: The pools, brought up by the first call of the C API where no interposer has done it. */
#ifndef PM_BRINGUP_H
#define PM_BRINGUP_H

#include "pools/alloc.h"

NOINLINE bool bringup_now(void);

/* False: there is no address space, or the system refuses. */
INLINE bool bringup_done(void) { return LIKELY(__atomic_load_n(&pm_pools_ready, __ATOMIC_ACQUIRE)) || bringup_now(); }

#endif
