/* malloc_hardened.c: the hardened library's malloc family: every call comes here. Compiled into that library alone. */
#include "preload/malloc.h"

#include "pools/hardened.h"
#include "preload/next.h"
#include "preload/start.h"

#include <string.h>

void *allocate_aligned(size_t size, size_t align, made how, const void *caller)
{
    if (UNLIKELY(!start_done()))
        return boot_or_fail(size);
    if (pm_pools_ready && is_power_of_two(align)) {
        void *p = hardened_alloc(size, align, how, caller);
        if (UNLIKELY(!p) && (size > BLOCK_MAX || !pm_config.limit) && memory_shed())
            p = hardened_alloc(size, align, how, caller);
        if (p)
            return watched(p, size);
        if (size <= BLOCK_MAX && !overflow_forwards(size))
            return out_of_memory();
    }
    forwarded();
    return watched(align > QUANTUM ? pm_next.memalign(align, size_max(size, 1)) : pm_next.calloc(1, size), size);
}

static void *allocate_elsewhere(size_t size, made how, const void *caller) { return allocate_aligned(size, QUANTUM, how, caller); }

void *allocate_hardened(size_t size, made how, const void *caller) { return hardened_take(size, how, caller, allocate_elsewhere); }

void free_hardened(void *p, const void *caller) { hardened_free(p, caller, free_foreign); }

void release_hardened(void *p, giving g, size_t said, const void *caller)
{
    hardened_give(p, g, said, caller, free_foreign);
}

static void *realloc_foreign(void *p, size_t size, const void *caller)
{
    bool ready = start_done();
    if (boot_holds(p)) {
        void *to = allocate_hardened(size, BY_MALLOC, caller);
        return to ? memcpy(to, p, size_min(boot_size(p), size)) : NULL;
    }
    if (UNLIKELY(!ready))
        return out_of_memory();
    forwarded();
    return realloc_next(p, size);
}

/* To another place whenever the size changes: what is left of the old one is closed to whoever still has its address. */
static void *move(void *p, size_t old, size_t size, const void *caller)
{
    void *to = guard_realloc(p, size, caller);
    if (to)
        return to;
    to = allocate_hardened(size, BY_MALLOC, caller);
    if (!to)
        return size <= old ? p : NULL;
    memcpy(to, p, size_min(old, size));
    release_hardened(p, giving_by(CALL_REALLOC), SIZE_MAX, caller);
    return to;
}

void *realloc_hardened(void *p, size_t size, const void *caller)
{
    if (!p)
        return allocate_hardened(size, BY_MALLOC, caller);
    size_t old = hardened_size(p, CALL_REALLOC, caller);
    if (old == SIZE_MAX)
        return realloc_foreign(p, size, caller);
    if (size == 0) {
        release_hardened(p, giving_by(CALL_REALLOC), SIZE_MAX, caller);
        return NULL;
    }
    return size == old ? p : move(p, old, size, caller);
}
