/* view.c: the live view over a corrupted process: this one, whose bookkeeping is seen with changes of twelve bytes each: which structure,
 * how, which word of it, and a value. Whatever is read, the reader ends, and touches nothing but its own copies. */
#include "../unit/start.h"

#include "insight/print.h"
#include "live.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CHANGE = 12, CHANGES = 16, BLOCKS = 3000 };

static struct change {
    uintptr_t at; /* a multiple of 8 */
    uint64_t value;
} changes[CHANGES];
static size_t change_count;

/* ---- what the reader gets of its process ---- */

static void change_apply(const struct change *c, uintptr_t from, size_t bytes, char *to)
{
    for (size_t i = 0; i < sizeof c->value; i++)
        if (c->at + i - from < bytes)
            memcpy(to + (c->at + i - from), (const char *)&c->value + i, 1);
}

ssize_t __wrap_process_vm_readv(pid_t pid, const struct iovec *to, unsigned long n, const struct iovec *from, unsigned long m, unsigned long flags);
ssize_t __real_process_vm_readv(pid_t pid, const struct iovec *to, unsigned long n, const struct iovec *from, unsigned long m, unsigned long flags);
ssize_t __wrap_process_vm_readv(pid_t pid, const struct iovec *to, unsigned long n, const struct iovec *from, unsigned long m, unsigned long flags)
{
    for (unsigned long i = 0; i < n; i++) /* where a sanitizer sees it, too */
        memset(to[i].iov_base, 0, to[i].iov_len);
    ssize_t got = __real_process_vm_readv(pid, to, n, from, m, flags);
    for (unsigned long i = 0; i < n; i++)
        for (size_t c = 0; c < change_count; c++)
            change_apply(&changes[c], (uintptr_t)from[i].iov_base, from[i].iov_len, to[i].iov_base);
    return got;
}

/* ---- a process with some of everything ---- */

static void *blocks[BLOCKS];

static void *free_some(void *unused)
{
    for (size_t i = 0; i < BLOCKS; i += 3)
        free_block(blocks[i]);
    for (size_t i = 0; i < 100; i++)
        blocks[3 * i] = take_class(class_of(3000));
    return unused;
}

static void process_make(void)
{
    static char *settings[] = {"POOLMALLOC_STATS=full", NULL};
    static const pm_sharing kinds[] = {PM_SHARING_THREADS, PM_SHARING_LOCKED, PM_SHARING_NONE};
    pthread_t other;
    pools_start(getenv("POOLMALLOC_STATS") ? settings : settings + 1);
    for (size_t i = 0; i < BLOCKS; i++)
        blocks[i] = take_class(class_of(i % 7 * 90 + 16));
    if (pthread_create(&other, NULL, free_some, NULL) != 0 || pthread_join(other, NULL) != 0)
        abort();
    for (int k = 0; k < 3; k++) {
        pm_pool_options options = {.struct_size = sizeof options, .name = "pool", .block_size = 80, .sharing = kinds[k]};
        pm_pool *pool = pm_pool_create(&options);
        for (int i = 0; i < 1000; i++)
            pm_pool_alloc(pool);
    }
    pm_arena_alloc(pm_arena_create(NULL, 0), 1000, 0);
    for (size_t i = 1; i < BLOCKS; i += 3)
        free_block(blocks[i]);
}

/* ---- changes ---- */

static struct {
    const void *at;
    size_t bytes;
} places[16];
static size_t place_count;

static void place_add(const void *at, size_t bytes)
{
    places[place_count].at = at;
    places[place_count++].bytes = bytes;
}

static void places_find(const live *l)
{
    const control *c = &l->control;
    place_add(c->region, sizeof(region));
    place_add(c->registry, sizeof(registry));
    place_add(c->depot, sizeof(depot));
    place_add(c->pools, offsetof(pool_table, of_bin));
    place_add(c->classes, sizeof(size_class) * CLASS_MAX);
    place_add(c->class_counts, sizeof(class_count) * CLASS_MAX);
    place_add(c->class_count, sizeof(uint64_t));
    place_add(c->next, sizeof(uint64_t));
    place_add(pm_region.slabs, pm_depot.fresh * sizeof(slab));
    for (uint32_t i = 0; i < 3 && i < pm_registry.count; i++)
        place_add(registry_heap(i), sizeof(heap));
    place_add(pm_pools.first, 4 * 512);      /* pools' records */
    place_add(blocks[1], 4 * KIB);           /* a block: nothing reads it */
}

/* What is read where `was` lies: another value, other bits, a little more or less, or another lower half. */
static uint64_t value_changed(uint64_t was, unsigned how, uint64_t value)
{
    switch (how % 4) {
    case 0: return value;
    case 1: return was ^ value;
    case 2: return was + value % 256 - 128;
    default: return (was & ~(uint64_t)UINT32_MAX) | (uint32_t)value;
    }
}

/* Of one of the places: the last word of one may be cut. */
static __attribute__((no_sanitize_address)) uint64_t word_at(uintptr_t at) { return *(const volatile uint64_t *)at; } /* NOLINT */

/* The last place is the control page, of which the reader has a copy already. */
static void changes_read(const uint8_t *data, size_t size, live *l)
{
    for (change_count = 0; size >= CHANGE && change_count < CHANGES; data += CHANGE, size -= CHANGE) {
        size_t place = data[0] % (place_count + 1), at = (size_t)data[2] | (size_t)data[3] << 8;
        uint64_t value;
        memcpy(&value, data + 4, sizeof value);
        if (place == place_count) {
            at %= sizeof(control) / 8;
            memcpy((char *)&l->control + at * 8, &value, sizeof value);
            continue;
        }
        struct change *c = &changes[change_count++];
        c->at = (uintptr_t)places[place].at + at % (places[place].bytes / 8) * 8;
        c->value = value_changed(word_at(c->at), data[1], value);
    }
}

/* ---- the run ---- */

static live seen;
static control sound;
static int nowhere;

static void start(void)
{
    process_make();
    nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (live_open(&seen, getpid()) != LIVE_FOUND)
        abort();
    sound = seen.control;
    places_find(&seen);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static pm_stats s;
    if (!pm_pools_ready)
        start();
    seen.control = sound;
    changes_read(data, size, &seen);
    if (live_take(&seen) != LIVE_FOUND)
        return 0;
    stats_gather_from(&seen.view, &s);
    for (uint32_t i = 0; i < seen.view.heap_count; i++) {
        heap_stats h;
        stats_heap(&seen.view, i, &h);
    }
    if (!stats_write(&seen.view, &s, (stats_format)(size % 3), nowhere))
        abort();
    return 0;
}
