/* pool_api.c: Explicit pools from creation to end, and what they tell; blocks come and go in pool_use.c. */
#include "ground/config.h"
#include "pools/depot.h"
#include "explicit/pool.h"
#include "pools/misuse.h"
#include "pools/registry.h"
#include "ground/text.h"

#include <stdio.h>
#include <string.h>

#define ALIGN_LEAST ((size_t)8)
#define ALIGN_MOST (4 * KIB)
#define OWN_BIN 4 /* times the limit of a thread's bin: there is one a pool */

/* ---- options ---- */

/* A copy in today's layout: what an older caller's struct lacks is zero. False: not even a block size. */
static bool options_copy(pm_pool_options *to, const pm_pool_options *from)
{
    if (!from || from->struct_size < offsetof(pm_pool_options, block_size) + sizeof from->block_size)
        return false;
    memset(to, 0, sizeof *to);
    memcpy(to, from, size_min(from->struct_size, sizeof *to));
    to->block_align = to->block_align == 0 ? QUANTUM : to->block_align < ALIGN_LEAST && is_power_of_two(to->block_align) ? ALIGN_LEAST : to->block_align;
    if (to->buffer && to->sharing == PM_SHARING_THREADS)
        to->sharing = PM_SHARING_LOCKED;
    return true;
}

static bool numbers_are_good(const pm_pool_options *o)
{
    size_t fixed = o->overflow == PM_OVERFLOW_FAIL ? o->initial_blocks : 0, most = o->max_blocks ? o->max_blocks : fixed;
    if (o->initial_blocks > PTRDIFF_MAX / BLOCK_MAX || o->grow_blocks > PTRDIFF_MAX / BLOCK_MAX)
        return false;
    if (most && (most < o->initial_blocks || most < o->high_water))
        return false;
    return o->buffer ? o->initial_blocks == 0 : o->overflow != PM_OVERFLOW_FAIL || most; /* else it would never give any */
}

static bool options_are_good(const pm_pool_options *o)
{
    if (o->block_size == 0 || o->block_size > BLOCK_MAX)
        return false;
    if (!is_power_of_two(o->block_align) || o->block_align > ALIGN_MOST)
        return false;
    if ((unsigned)o->sharing > PM_SHARING_NONE || (unsigned)o->overflow > PM_OVERFLOW_FAIL)
        return false;
    return numbers_are_good(o);
}

/* More than the machine has is refused before it is tried: slabs not touched would still cost their records. */
static bool options_are_possible(const pm_pool_options *o)
{
    size_t bytes = o->initial_blocks * round_up(size_max(o->block_size, QUANTUM), o->block_align);
    return bytes < GIB || bytes <= os_memory();
}

/* ---- bins in all heaps; no thread is inside a call on the pool ---- */

typedef void bin_visit(pm_pool *pool, bin *b);

static void bins_visit(pm_pool *pool, bin_visit *each)
{
    uint32_t heaps = LOAD(&pm_registry.count);
    each(pool, &pool->own);
    each(pool, &pool->hand);
    for (uint32_t i = 0; i < heaps && pool->sharing == PM_SHARING_THREADS; i++)
        each(pool, pool_bin(pool, registry_heap(i)));
}

static void bin_drop(pm_pool *pool, bin *b)
{
    (void)pool;
    if (b->limit == 0) /* not used there: its page stays untouched */
        return;
    b->free = NULL;
    b->room = b->limit;
}

static void bin_close(pm_pool *pool, bin *b)
{
    (void)pool;
    if (b->limit)
        memset(b, 0, sizeof *b);
}

static void bin_empty(pm_pool *pool, bin *b)
{
    if (b->free)
        pool_give_back(pool, b, SIZE_MAX);
}

/* The bins that the calling thread uses. */
static void bins_empty_mine(pm_pool *pool)
{
    bin_empty(pool, &pool->own);
    bin_empty(pool, &pool->hand);
    if (pool->sharing == PM_SHARING_THREADS && heap_is_real(my_heap))
        bin_empty(pool, pool_bin(pool, my_heap));
}

/* ---- creation and end ---- */

/* Pools lock. A number that no pool has, or POOL_BINS. */
static uint32_t bin_number_take(pm_pool *pool)
{
    uint32_t i = 0;
    while (i < POOL_BINS && pm_pools.of_bin[i])
        i++;
    if (i < POOL_BINS) {
        STORE(&pm_pools.of_bin[i], pool);
        pm_pools.bins = (uint32_t)size_max(pm_pools.bins, i + 1);
    }
    return i;
}

/* Pools lock. Without a number left a pool of THREADS becomes LOCKED: slower, and right. */
static void sharing_set(pm_pool *pool, pm_sharing sharing)
{
    uint32_t number = sharing == PM_SHARING_THREADS ? bin_number_take(pool) : POOL_BINS;
    pool->bin_offset = offsetof(pm_pool, hand);
    if (number < POOL_BINS) {
        pool->bin_offset = (uint32_t)(offsetof(heap, pool_bins) + number * sizeof(bin));
    } else if (sharing == PM_SHARING_THREADS) {
        sharing = PM_SHARING_LOCKED;
        pm_pools.demoted++;
    }
    pool->sharing = (uint8_t)sharing;
    pool->in_pool = sharing != PM_SHARING_THREADS;
    pool->looks_first = pool->overflow == PM_OVERFLOW_FORWARD || misuse_watched();
}

static void bin_open(const pm_pool *pool, bin *b)
{
    b->klass = CLASS_NONE;
    b->limit = OWN_BIN * pool->shape.limit;
    b->room = b->limit;
}

/* The hand is used by callers that look at nothing, and call nobody. */
static void own_bins_open(pm_pool *pool)
{
    if (pm_every_call_slow || pool->sharing == PM_SHARING_THREADS)
        return;
    bin_open(pool, &pool->own);
    if (pool->sharing == PM_SHARING_NONE && !pool->looks_first && !pool->on_mark)
        bin_open(pool, &pool->hand);
}

static void name_set(pm_pool *pool, const char *name)
{
    char cut[sizeof pool->name];
    snprintf(cut, sizeof cut, "%s", name);
    name_clean(cut, pool->name, sizeof pool->name);
}

static void pool_set(pm_pool *pool, const pm_pool_options *o)
{
    size_t size = round_up(size_max(o->block_size, QUANTUM), o->block_align);
    name_set(pool, o->name ? o->name : "pool");
    class_shape(&pool->shape, size, o->block_align);
    uint32_t per_slab = pool->shape.per_slab;
    pool->align = o->block_align;
    pool->overflow = (uint8_t)o->overflow;
    pool->most = o->max_blocks ? o->max_blocks : o->overflow == PM_OVERFLOW_FAIL && !o->buffer ? o->initial_blocks : SIZE_MAX;
    pool->keep = (uint32_t)((o->initial_blocks + per_slab - 1) / per_slab);
    pool->grow = (uint32_t)size_max(1, (o->grow_blocks + per_slab - 1) / per_slab);
    pool->report_leaks = o->report_leaks;
    pool->mark = o->high_water;
    pool->on_mark = o->high_water ? o->on_high_water : NULL;
    pool->context = o->context;
    sharing_set(pool, o->sharing);
    own_bins_open(pool);
}

/* ---- names: statistics need to tell pools of one name apart; pools lock ---- */

#define NAMES_SOUGHT 1000 /* pools, among which a name is looked for; with more, what may be a twin is taken for one */

static uint8_t names_count[8192] RARE; /* pools there are whose names come to that number; 255: many, once */

static uint8_t *name_count(const char *name)
{
    uint32_t hash = 2166136261u;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 16777619u;
    return &names_count[hash >> 19];
}

static bool name_is_taken(const char *name)
{
    const pm_pool *pool = pm_pools.count <= NAMES_SOUGHT ? pm_pools.first : NULL;
    while (pool && strncmp(pool->name, name, sizeof pool->name) != 0)
        pool = pool->next;
    return pool || pm_pools.count > NAMES_SOUGHT;
}

static void name_enter(pm_pool *pool)
{
    uint8_t *count = name_count(pool->name);
    bool malloc_s = begins(pool->name, "malloc-") || (begins(pool->name, "arenas") && !pool->name[6]);
    pool->twin = malloc_s || (*count > 0 && name_is_taken(pool->name));
    pool->number = ++pm_pools.made;
    if (*count < 255)
        ++*count;
}

static void name_leave(const pm_pool *pool)
{
    uint8_t *count = name_count(pool->name);
    if (*count < 255)
        --*count;
}

/* At the end: who reads the list without the lock finds the pools that stay, however many others come and go. */
static void pool_link(pm_pool *pool)
{
    pool->next = NULL;
    pool->previous = pm_pools.last;
    STORE(pool->previous ? &pool->previous->next : &pm_pools.first, pool);
    pm_pools.last = pool;
    pm_pools.count++;
}

static void pool_unlink(pm_pool *pool)
{
    *(pool->next ? &pool->next->previous : &pm_pools.last) = pool->previous;
    STORE(pool->previous ? &pool->previous->next : &pm_pools.first, pool->next);
    pm_pools.count--;
}

static pm_pool *pool_make(const pm_pool_options *o, heap *h)
{
    pm_pool *pool = record_take(h);
    if (pool) {
        os_lock_take(&pm_pools.lock);
        pool_set(pool, o);
        name_enter(pool);
        pool_link(pool);
        os_lock_give(&pm_pools.lock);
    }
    return pool;
}

static bool pool_reserve(pm_pool *pool, heap *h)
{
    for (uint32_t i = 0; i < pool->keep; i++) {
        slab *s = guest_slab(h);
        if (!s)
            return false;
        if (pm_config.prefault)
            os_populate(slab_begin(s), SLAB_ROOM);
        if (pm_config.lock)
            os_mlock(slab_begin(s), SLAB_ROOM);
        pool_lock(pool);
        pool_accept(pool, s);
        pool_unlock(pool);
    }
    return true;
}

static pm_pool *pool_begin(const pm_pool_options *o)
{
    heap *h = heap_enter_mine();
    pm_pool *pool = pool_make(o, h);
    bool ready = pool && pool_reserve(pool, h);
    heap_leave_mine(h);
    if (pool && !ready) {
        pm_pool_destroy(pool);
        return NULL;
    }
    return pool;
}

pm_pool *pm_pool_create(const pm_pool_options *options)
{
    pm_pool_options o;
    if (!options_copy(&o, options) || !options_are_good(&o))
        return fail_with(EINVAL);
    pm_pool *pool = options_are_possible(&o) && explicit_up() ? pool_begin(&o) : NULL;
    if (!pool)
        return fail_with(ENOMEM);
    if (!o.buffer || pm_pool_extend(pool, o.buffer, o.buffer_bytes) == 0)
        return pool;
    pm_pool_destroy(pool);
    return fail_with(EINVAL);
}

static piece *piece_add(pm_pool *pool, void *buffer, size_t bytes)
{
    piece *p = piece_make(buffer, bytes, pool->shape.size, pool->align);
    if (!p)
        return NULL;
    heap *h = pool_enter(pool);
    p->next = pool->pieces;
    STORE(&pool->pieces, p);
    pool->piece_blocks += p->blocks;
    pool_leave(pool, h);
    return p;
}

int pm_pool_extend(pm_pool *pool, void *buffer, size_t bytes)
{
    bool good = pool && buffer && bytes <= PTRDIFF_MAX && pool->slabs.count == 0 && piece_add(pool, buffer, bytes);
    if (!good)
        errno = EINVAL;
    return good ? 0 : -1;
}

void pm_pool_reset(pm_pool *pool)
{
    if (!pool)
        return;
    heap *h = pool_enter(pool);
    pool_reset(pool);
    bins_visit(pool, bin_drop);
    pool_leave(pool, h);
}

static void leaks_report(const pm_pool *pool)
{
    pm_pool_stats s = {.struct_size = sizeof s};
    pm_pool_stats_get(pool, &s);
    if (s.used)
        report("pool %s ends with %zu blocks of %zu bytes in use", pool->name, s.used, s.block_size);
}

/* Who uses it all the same, before the record serves another, gets nothing. */
static void pool_bury(pm_pool *pool)
{
    pool->ended = true;
    pool->sharing = PM_SHARING_LOCKED;
    pool->in_pool = true;
    pool->bin_offset = offsetof(pm_pool, hand);
    pool->looks_first = true;
    pool->overflow = PM_OVERFLOW_FAIL;
    pool->most = 0;
    pool->pieces = NULL;
}

void pm_pool_destroy(pm_pool *pool)
{
    if (!pool)
        return;
    if (misuse_watched() && pool->ended)
        misuse_abort(&(misuse){.function = "pm_pool_destroy", .pointer = pool, .what = "the pool has ended", .pool = pool->name});
    if (pm_config.verbose || pool->report_leaks)
        leaks_report(pool);
    heap *h = heap_enter_mine();
    os_lock_take(&pm_pools.lock); /* a thread that ends gives its blocks of pools back under it */
    pool_unlink(pool);
    name_leave(pool);
    bins_visit(pool, bin_close);
    if (pool->sharing == PM_SHARING_THREADS)
        STORE(&pm_pools.of_bin[(pool->bin_offset - offsetof(heap, pool_bins)) / sizeof(bin)], NULL);
    pool_reset(pool);
    pool_shed(pool, 0);
    slab *leaving = pool->leaving;
    pool_bury(pool);
    record_give(pool);
    os_lock_give(&pm_pools.lock);
    if (leaving)
        depot_put(leaving, NULL);
    heap_leave_mine(h);
}

/* ---- questions ---- */

static bool pieces_own(pm_pool *pool, const void *p)
{
    pool_lock(pool);
    const piece *found = pieces_find(pool->pieces, pool->shape.size, p);
    pool_unlock(pool);
    return found != NULL;
}

bool pm_pool_owns(const pm_pool *pool, const void *p)
{
    return pool && (pm_pool_of(p) == pool || (LOAD(&pool->pieces) && pieces_own((pm_pool *)pool, p)));
}

pm_pool *pm_pool_of(const void *p) { return region_holds(p) ? LOAD(&slab_of(p)->pool) : NULL; }

size_t pm_pool_hand_of_thread(const pm_pool *pool)
{
    return pool && pool->sharing == PM_SHARING_THREADS && !pool->looks_first ? pool->bin_offset : CLASS_NONE * sizeof(bin);
}

/* ---- visits: blocks whose bit is not set are in use, since none lies in a bin ----
 * Nothing is kept of a visit but where it has come to: however `each` ends it, the pool is as it was. */

typedef struct visit {
    pm_pool *pool;
    void (*each)(void *, void *);
    void *context;
} visit;

static void bins_empty_with(pm_pool *pool, bool all)
{
    heap *h = pool_enter(pool);
    if (all)
        bins_visit(pool, bin_empty);
    else
        bins_empty_mine(pool);
    pool_leave(pool, h);
}

static void block_visit(const visit *v, const uint64_t *bits, size_t i, char *at)
{
    if (bits[i / 64] >> i % 64 & 1)
        return;
    v->each(at, v->context);
    bins_empty_with(v->pool, false); /* of what it has freed */
}

static void slab_visit(const visit *v, const slab *s)
{
    const size_class *c = &v->pool->shape;
    char *first = slab_first(s, c);
    for (size_t i = 0; LOAD(&s->pool) == v->pool && i < s->high; i++)
        block_visit(v, slab_bits(s, c), i, first + i * c->size);
}

void pm_pool_visit(pm_pool *pool, void (*each)(void *block, void *context), void *context)
{
    if (!pool || !each)
        return;
    const visit v = {pool, each, context};
    bins_empty_with(pool, true);
    for (const piece *p = pool->pieces; p; p = p->next)
        for (size_t i = 0; i < p->blocks; i++)
            block_visit(&v, p->bits, i, p->first + i * pool->shape.size);
    for (size_t i = 0, n = LOAD(&pm_depot.fresh); i < n && pool->slabs.count > 0; i++)
        slab_visit(&v, &pm_region.slabs[i]);
}

static size_t held_in_bins(pm_pool *pool)
{
    size_t held = bin_holds(&pool->own) + bin_holds(&pool->hand);
    uint32_t heaps = pool->sharing == PM_SHARING_THREADS ? LOAD(&pm_registry.count) : 0;
    for (uint32_t i = 0; i < heaps; i++) {
        const bin *b = pool_bin(pool, registry_heap(i));
        int32_t holds = LOAD(&b->limit) - LOAD(&b->room); /* another thread's: may be in the midst of a change */
        held += holds > 0 ? (size_t)holds : 0;
    }
    return held;
}

static size_t capacity(const pm_pool *pool)
{
    if (pool->pieces)
        return size_min(pool->most, pool->piece_blocks);
    return pool->most != SIZE_MAX ? pool->most : pool->slabs.count * pool->shape.per_slab;
}

void pm_pool_stats_get(const pm_pool *asked, pm_pool_stats *stats)
{
    pm_pool *pool = (pm_pool *)asked;
    if (!pool || !stats || stats->struct_size < sizeof(size_t))
        return;
    pool_lock(pool);
    pm_pool_stats s = {.struct_size = stats->struct_size,
                       .block_size = pool->shape.size,
                       .block_align = pool->align,
                       .capacity = capacity(pool),
                       .used = pool->out - size_min(pool->out, held_in_bins(pool)),
                       .high_water = pool->peak,
                       .failures = LOAD(&pool->failures),
                       .forwarded = LOAD(&pool->forwarded)};
    s.free = s.capacity - size_min(s.capacity, s.used);
    pool_unlock(pool);
    memcpy(stats, &s, size_min(stats->struct_size, sizeof s));
}

void pm_pool_high_water_reset(pm_pool *pool)
{
    if (!pool)
        return;
    heap *h = pool_enter(pool);
    bins_empty_mine(pool);
    pool->peak = pool->out;
    pool_leave(pool, h);
}

size_t pm_pool_trim(pm_pool *pool)
{
    if (!pool)
        return 0;
    heap *h = pool_enter(pool);
    size_t before = pool->slabs.count;
    bins_empty_mine(pool);
    pool_shed(pool, pool->keep);
    size_t after = pool->slabs.count;
    pool_leave(pool, h);
    return (before - after) * SLAB_SIZE;
}
