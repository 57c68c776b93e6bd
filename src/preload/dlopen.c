/* dlopen.c: dlopen without RTLD_DEEPBIND. A library that is loaded with it has the C library's malloc whatever is preloaded, and
 * gives back to it what the others got from us: php, and whoever loads its plugins so, would not start. */
#include "ground/config.h"
#include "ground/os.h"
#include "pools/bringup.h"

#include <dlfcn.h>

typedef void *opener(const char *file, int mode);

/* The C library looks at who calls it: that library's RUNPATH is where it searches. So the call must be its last thing, a jump. */
PM_EXPORT void *dlopen(const char *file, int mode)
{
    static opener *next;
    opener *open = LOAD(&next);
    if (!open) {
        *(void **)&open = dlsym(RTLD_NEXT, "dlopen");
        STORE(&next, open);
    }
    if (pm_pools_ready && pm_config.deepbind == DEEPBIND_CLEAR)
        mode &= ~OS_DEEPBIND;
    return open(file, mode);
}
