/* bringup.c: See bringup.h. */
#include "pools/bringup.h"

#include "ground/config.h"
#include "ground/os.h"
#include "pools/registry.h"
#include "ground/text.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static void complain(const char *line) { report("%s", line); }

/* The settings hold for a program that has the pools without the interposer too, but for malloc's block sizes: it has no
 * use for those. The interposer, where there is one, has its settings already: none of them is read twice. */
static void settings_load(void)
{
    if (!pm_config_loaded) {
        config_default(&pm_config);
        if (!os_privileged())
            config_load(&pm_config, environ, false, complain);
    }
    pm_config.sizes.length = 0;
}

bool bringup_now(void)
{
    int saved = errno;
    void *volatile first = malloc(1); /* brings an interposer up that no call has reached yet */
    free(first);
    os_lock_take(&pm_registry.gate); /* which a fork waits for */
    if (!pm_pools_ready) {
        settings_load();
        pools_init();
    }
    os_lock_give(&pm_registry.gate);
    errno = saved;
    return pm_pools_ready;
}

__attribute__((constructor)) static void at_load(void) { registry_forks_register(); }

/* Where this code is part of an object that can be unloaded, no thread may call it when it ends. */
__attribute__((destructor)) static void at_unload(void)
{
    if (pm_pools_ready)
        registry_unload();
}
