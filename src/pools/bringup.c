/* bringup.c: See bringup.h. */
#include "pools/bringup.h"

#include "ground/config.h"
#include "ground/os.h"
#include "ground/text.h"
#include "pools/depot.h"
#include "pools/fork.h"
#include "pools/learn.h"
#include "pools/seams.h"
#include "pools/threads.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

uint64_t pm_forwarded_elsewhere;
const char *pm_next_name = "none";
shared_bins pm_shared RARE; /* this and the next one here for readers: who uses them is above */
pool_table pm_pools RARE;

static void reserve_counts(void)
{
    bool lock = pm_config.lock, prefault = pm_config.prefault;
    for (unsigned c = 0; c < pm_class_count; c++) {
        const block_size *wish = &pm_config.sizes.at[c];
        size_t per_slab = pm_classes[c].per_slab, slabs = (wish->count + per_slab - 1) / per_slab;
        size_t got = slabs ? depot_reserve(c, slabs, prefault, &lock) : 0;
        if (got < slabs)
            report("POOLMALLOC_BLOCK_SIZES: '%u:%u': %s; %zu blocks are pre-allocated", wish->size, wish->count,
                   pm_config.limit ? "beyond POOLMALLOC_LIMIT" : "no memory for so many", got * per_slab);
    }
    if (lock != pm_config.lock)
        report("POOLMALLOC_LOCK: '1' is refused by the system (RLIMIT_MEMLOCK?); the pools are not locked");
}

static void tell_readers(void)
{
    control *c = region_control();
    c->classes = pm_classes;
    c->class_count = &pm_class_count;
    c->class_counts = pm_class_counts;
    c->depot = &pm_depot;
    c->config = &pm_config;
    c->pools = &pm_pools;
    c->pool_home = HEAP_POOL;
    c->nobody = HEAP_NOBODY;
    c->forwarded = &pm_forwarded_elsewhere;
    c->next = &pm_next_name;
    c->asked = &pm_asked;
    c->samples = &pm_samples;
    c->shared = &pm_shared;
    __atomic_store_n(&c->registry, &pm_registry, __ATOMIC_RELEASE); /* last: whoever finds it finds all */
}

bool pools_init(void)
{
    static bool tried;
    if (tried) /* and failed: what it left behind is not fit for a second time */
        return false;
    tried = true;
    fork_register();
    classes_init(&pm_config.sizes);
    learn_init(&pm_config.sizes);
    alloc_watch();
    if (pm_config.limit && pm_config.limit < LIMIT_SMALLEST)
        report("POOLMALLOC_LIMIT: %zu bytes are below 8M: that is obeyed, but a slab of 128 KiB for each block size soon fills it",
               pm_config.limit);
    if (!region_init(registry_front()) || !registry_init() || !threads_init())
        return false;
    reserve_counts();
    tell_readers();
    __atomic_store_n(&pm_pools_ready, true, __ATOMIC_RELEASE); /* bringup_done acquires */
    return true;
}

/* ---- without the interposer ---- */

static bool exiting;  /* the whole program ends, not this object alone */
static bool watching; /* exiting is told; never in the interposer, which comes up another way, and does not unload */

/* The settings hold for a program that has the pools without the interposer too, but for malloc's block sizes: it has no
 * use for those. The interposer, where there is one, has its settings already: none of them is read twice. */
static void settings_load(void)
{
    if (!pm_config_loaded)
        config_load(&pm_config, os_privileged() ? NULL : environ, NULL);
    pm_config.sizes = (size_list){.length = 0};
}

bool bringup_now(void)
{
    int saved = errno;
    void *volatile first = malloc(1); /* brings an interposer up that no call has reached yet */
    free(first);
    os_lock_take(&pm_registry.gate); /* which a fork waits for */
    bool mine = !pm_pools_ready;
    if (mine) {
        settings_load();
        pools_init();
    }
    os_lock_give(&pm_registry.gate);
    if (!PM_INTERPOSER && mine && pm_pools_ready) {
        os_exit_watch(&exiting);
        watching = true;
    }
    errno = saved;
    return pm_pools_ready;
}

__attribute__((constructor)) static void at_load(void) { fork_register(); }

/* Where this code is part of an object that is unloaded, no thread may call it when it ends, and its memory goes with it, as
 * its static variables do. At the program's end other threads, and other objects' destructors, may still use both. */
__attribute__((destructor)) static void at_unload(void)
{
    if (PM_INTERPOSER || !pm_pools_ready)
        return;
    threads_unload();
    if (!watching || exiting)
        return;
    os_exit_unwatch(&exiting);
    region_end();
}
