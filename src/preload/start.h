/* start.h: Bringing the interposer up: settings, pools, the next allocator, in this order. */
#pragma once

#include "ground/base.h"

/* True once everything is up. False on the thread that is just bringing it up (dlsym may allocate): serve that from the
 * boot arena. Other threads wait. errno is kept. */
bool start_done(void);
