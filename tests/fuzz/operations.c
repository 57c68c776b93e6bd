/* operations.c: four bytes an operation, on one of three threads that take turns: blocks of malloc's pools, explicit pools, arenas,
 * threads that end, a clock that is moved, a kernel that refuses. After each operation every invariant is checked, and that each
 * block holds what was written into it; at times, that the statistics say exactly what is in use.
 * POOLMALLOC_ settings count: other modes are other runs. */
#include "../unit/start.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>

enum { SLOTS = 64, POOLS = 4, ARENAS = 2, THREADS = 3, BURST = 600, BULK = 40 };

#define MUST(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "operations: line %d: %s\n", __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

typedef struct operation {
    uint8_t what, slot, a, b;
} operation;

/* ---- the kernel and the clock, as the input has them ---- */

static uint64_t clock_ms = 1000000;
static unsigned refusals; /* of calls to come */

static bool refused(void) { return refusals > 0 && refusals-- > 0; }

uint64_t __wrap_os_now_ms(void);
bool __wrap_os_map_at(void *at, size_t bytes);
bool __real_os_map_at(void *at, size_t bytes);
bool __wrap_os_purge(void *at, size_t bytes);
bool __real_os_purge(void *at, size_t bytes);
uint64_t __wrap_os_now_ms(void) { return clock_ms; }
bool __wrap_os_map_at(void *at, size_t bytes) { return !refused() && __real_os_map_at(at, bytes); }
bool __wrap_os_purge(void *at, size_t bytes) { return !refused() && __real_os_purge(at, bytes); }

/* ---- what there is ---- */

static struct {
    unsigned char *p;
    size_t size; /* of it, all bytes of which are `fill` */
    unsigned char fill;
    pm_pool *pool; /* NULL: malloc's */
} slots[SLOTS];
static struct {
    pm_pool *pool;
    size_t in_use, most;
} pools[POOLS];
static struct {
    pm_arena *arena;
    pm_arena_mark mark;
    bool marked;
} arenas[ARENAS];

static bool may_fail(void) { return refusals > 0 || pm_config.limit > 0; }

static size_t *in_use_of(pm_pool *pool)
{
    unsigned i = 0;
    while (pools[i].pool != pool)
        i++;
    return &pools[i].in_use;
}

static void slot_fill(unsigned i, void *p, size_t size, pm_pool *pool)
{
    slots[i].p = p;
    slots[i].size = size;
    slots[i].fill = (unsigned char)(i + size);
    slots[i].pool = pool;
    memset(p, slots[i].fill, size);
    if (pool)
        ++*in_use_of(pool);
}

static void slot_end(unsigned i)
{
    unsigned char *p = slots[i].p;
    MUST(p[0] == slots[i].fill && memcmp(p, p + 1, slots[i].size - 1) == 0);
    slots[i].p = NULL;
    if (slots[i].pool) {
        --*in_use_of(slots[i].pool);
        pm_pool_free(slots[i].pool, p);
    } else {
        free_block(p);
    }
}

/* ---- malloc's pools ---- */

static void block_toggle(const operation *o)
{
    unsigned i = o->slot % SLOTS;
    if (slots[i].p) {
        slot_end(i);
        return;
    }
    size_t size = (size_t)o->a * o->a / 2 + 1, align = (size_t)1 << o->b % 13;
    unsigned klass = o->b < 128 ? class_of(size) : class_aligned(size, align);
    bool may = may_fail(), zero = o->b & 64;
    unsigned char *p = klass == CLASS_NONE ? NULL : zero ? take_zeroed(klass) : take_class(klass);
    if (!p) {
        MUST(may || klass == CLASS_NONE);
        return;
    }
    MUST(o->b < 128 || (uintptr_t)p % align == 0);
    MUST(!zero || (p[0] == 0 && memcmp(p, p + 1, pm_classes[klass].size - 1) == 0));
    slot_fill(i, p, pm_classes[klass].size, NULL);
}

/* Many at once, given back in another order and perhaps by another thread. */
static void *burst[BURST];
static size_t burst_count;

static void burst_take(const operation *o)
{
    size_t size = (size_t)o->slot * o->slot / 4 + 1, most = size_min((size_t)o->a * 4 + 1, MIB / size);
    unsigned klass = class_of(size);
    bool may = may_fail();
    while (klass != CLASS_NONE && burst_count < BURST && most-- > 0) {
        void *p = take_class(klass);
        if (!p) {
            MUST(may);
            return;
        }
        *(uint64_t *)p = burst_count;
        burst[burst_count++] = p;
    }
}

static void burst_end(const operation *o)
{
    static const size_t steps[] = {1, BURST - 1, 7, 241}; /* all prime to BURST + 1 */
    size_t step = steps[o->b % 4], left = burst_count;
    for (size_t n = 0, i = 0; left > 0 && n <= BURST; n++, i = (i + step) % (BURST + 1))
        if (i < burst_count && burst[i]) {
            MUST(*(uint64_t *)burst[i] == i);
            free_block(burst[i]);
            burst[i] = NULL;
            left--;
        }
    MUST(left == 0);
    burst_count = 0;
}

/* ---- explicit pools ---- */

static void mark_reached(pm_pool *pool, void *context)
{
    (void)context;
    pm_pool_free(pool, pm_pool_alloc(pool)); /* it may use the pool */
}

static void pool_forget(pm_pool *pool)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (slots[i].p && slots[i].pool == pool)
            slots[i].p = NULL;
}

/* What an overflowing pool has of malloc's is the caller's to free, before a reset or the pool's end. */
static void pool_forwarded_end(pm_pool *pool)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (slots[i].p && slots[i].pool == pool && !pm_pool_owns(pool, slots[i].p))
            slot_end(i);
}

static void pool_toggle(const operation *o)
{
    unsigned i = o->slot % POOLS;
    pm_pool *pool = pools[i].pool;
    if (pool) {
        pool_forwarded_end(pool);
        pool_forget(pool);
        pm_pool_destroy(pool);
        pools[i].pool = NULL;
        return;
    }
    pm_pool_options options = {.struct_size = sizeof options, .name = "fuzzed", .block_size = (size_t)o->a * 40,
        .block_align = o->b & 1 ? (size_t)8 << o->b % 11 : 0, .max_blocks = o->b & 2 ? o->a : 0, .sharing = (pm_sharing)(o->slot / 4 % 3),
        .overflow = (pm_overflow)(o->slot / 16 % 4), .initial_blocks = o->b & 4 ? o->a / 2 : 0, .high_water = o->b & 8 ? 5 : 0,
        .on_high_water = o->b & 8 ? mark_reached : NULL};
    pools[i].pool = pm_pool_create(&options);
    pools[i].in_use = 0;
    pools[i].most = options.max_blocks;
    MUST(pools[i].pool || errno == EINVAL || errno == ENOMEM);
}

static void pool_block_toggle(const operation *o)
{
    unsigned i = o->slot % SLOTS;
    pm_pool *pool = pools[o->a % POOLS].pool;
    if (slots[i].p) {
        slot_end(i);
    } else if (pool) {
        pm_pool_stats s = {.struct_size = sizeof s};
        pm_pool_stats_get(pool, &s);
        unsigned char *p = o->b & 1 ? pm_pool_zalloc(pool) : pm_pool_alloc(pool);
        if (!p)
            return;
        MUST(!(o->b & 1) || (p[0] == 0 && memcmp(p, p + 1, s.block_size - 1) == 0));
        MUST(pm_pool_of(p) == pool || !pm_pool_owns(pool, p));
        slot_fill(i, p, s.block_size, pool);
    }
}

static void block_count(void *p, void *count)
{
    MUST(pm_pool_of(p) != NULL);
    ++*(size_t *)count;
}

static size_t pool_slots(pm_pool *pool)
{
    size_t n = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        n += slots[i].p && slots[i].pool == pool && pm_pool_owns(pool, slots[i].p);
    return n;
}

static void pool_use(const operation *o)
{
    pm_pool *pool = pools[o->slot % POOLS].pool;
    void *blocks[BULK];
    size_t seen = 0;
    if (!pool)
        return;
    switch (o->a % 5) {
    case 0:
        pool_forwarded_end(pool);
        pool_forget(pool);
        pools[o->slot % POOLS].in_use = 0;
        pm_pool_reset(pool);
        break;
    case 1: pm_pool_trim(pool); break;
    case 2:
        pm_pool_visit(pool, block_count, &seen);
        MUST(seen == pool_slots(pool));
        break;
    case 3:
        seen = pm_pool_alloc_bulk(pool, blocks, o->b % BULK);
        for (size_t n = 0; n < seen; n++)
            memset(blocks[n], (int)n, 8);
        pm_pool_free_bulk(pool, blocks, seen);
        break;
    default: pm_pool_high_water_reset(pool); break;
    }
}

/* ---- arenas ---- */

static void arena_use(const operation *o)
{
    unsigned i = o->slot % ARENAS;
    pm_arena *arena = arenas[i].arena;
    if (!arena) {
        arenas[i].arena = pm_arena_create(NULL, (size_t)o->a * 100);
        arenas[i].marked = false;
        return;
    }
    if (o->b % 16 == 0) {
        pm_arena_destroy(arena);
        arenas[i].arena = NULL;
    } else if (o->b % 16 == 1) {
        pm_arena_reset(arena);
        arenas[i].marked = false;
    } else if (o->b % 16 == 2) {
        arenas[i].mark = pm_arena_save(arena);
        arenas[i].marked = true;
    } else if (o->b % 16 == 3 && arenas[i].marked) {
        pm_arena_rewind(arena, arenas[i].mark);
        arenas[i].marked = false;
    } else {
        size_t size = (size_t)o->a * o->a * (o->b & 64 ? 4 : 1), align = (size_t)1 << o->b / 16;
        char *p = pm_arena_alloc(arena, size, align);
        MUST(!p || (uintptr_t)p % align == 0);
        if (p)
            memset(p, 0xaa, size);
    }
}

/* ---- the rest ---- */

static size_t slots_of_class(unsigned klass)
{
    size_t n = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        n += slots[i].p && !slots[i].pool && slab_of(slots[i].p)->klass == klass;
    for (size_t i = 0; i < burst_count; i++)
        n += slab_of(burst[i])->klass == klass;
    return n;
}

static void statistics_compare(const operation *o)
{
    static pm_stats s;
    static int nowhere = -1;
    stats_copy(&s, sizeof s, true);
    MUST(s.busy == 0);
    for (unsigned klass = 0; klass < pm_class_count; klass++)
        MUST(s.row[klass].used == slots_of_class(klass));
    if (nowhere < 0)
        nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    MUST(stats_report_to(nowhere, (stats_format)(o->a % 3)));
}

static void system_change(const operation *o)
{
    if (o->a % 4 == 0)
        refusals = o->b % 32;
    else if (o->a % 4 == 1)
        clock_ms += (uint64_t)o->b * 20;
    else if (o->a % 4 == 2)
        pm_trim();
    else
        pm_thread_idle();
}

static void operation_run(const operation *o)
{
    static void (*const table[16])(const operation *) = {
        block_toggle, block_toggle, block_toggle, block_toggle, block_toggle, burst_take, burst_take, burst_end,
        pool_toggle, pool_block_toggle, pool_block_toggle, pool_block_toggle, pool_use, arena_use, statistics_compare, system_change};
    table[o->what % 16](o);
}

/* ---- threads that take turns; number 0 is the fuzzer's own ---- */

static struct {
    pthread_t thread;
    sem_t go, done;
    const operation *next; /* NULL: it ends */
    bool runs;
} workers[THREADS];

static void *worker_run(void *number)
{
    size_t i = (size_t)number;
    for (;;) {
        while (sem_wait(&workers[i].go) != 0)
            ;
        if (!workers[i].next)
            return NULL;
        operation_run(workers[i].next);
        sem_post(&workers[i].done);
    }
}

static void worker_end(size_t i)
{
    if (!workers[i].runs)
        return;
    workers[i].next = NULL;
    sem_post(&workers[i].go);
    pthread_join(workers[i].thread, NULL);
    workers[i].runs = false;
}

static void operation_run_on(size_t i, const operation *o)
{
    if (i == 0) {
        operation_run(o);
        return;
    }
    if (!workers[i].runs) {
        sem_init(&workers[i].go, 0, 0);
        sem_init(&workers[i].done, 0, 0);
        MUST(pthread_create(&workers[i].thread, NULL, worker_run, (void *)i) == 0);
        workers[i].runs = true;
    }
    workers[i].next = o;
    sem_post(&workers[i].go);
    while (sem_wait(&workers[i].done) != 0)
        ;
}

/* Bit 4 to 6: 0 to 3 the first thread, 4 and 5 another, 6 and 7 it ends first: its heap is idle, then adopted. */
static void step(const operation *o)
{
    unsigned where = o->what / 16 % 8;
    size_t thread = where < 4 ? 0 : 1 + where % 2;
    if (where >= 6)
        worker_end(thread);
    operation_run_on(thread, o);
    pm_check();
}

static void all_end(void)
{
    refusals = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        if (slots[i].p)
            slot_end(i);
    burst_end(&(operation){.b = 0});
    for (unsigned i = 0; i < POOLS; i++) {
        pm_pool_destroy(pools[i].pool);
        pools[i].pool = NULL;
    }
    for (unsigned i = 0; i < ARENAS; i++) {
        pm_arena_destroy(arenas[i].arena);
        arenas[i].arena = NULL;
    }
    pm_check();
    statistics_compare(&(operation){.a = 0});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!pm_pools_ready)
        pools_start(environ);
    for (size_t at = 0; at + sizeof(operation) <= size; at += sizeof(operation))
        step((const operation *)(data + at));
    all_end();
    return 0;
}
