/* pool.c: See pool.h. */
#include "explicit/pool.h"

#include "ground/text.h"
#include "pools/bringup.h"
#include "pools/depot.h"
#include "pools/misuse.h"
#include "pools/seams.h"

#include <string.h>

void pool_lock(pm_pool *pool)
{
    if (pool->sharing != PM_SHARING_NONE)
        pool_hold(pool);
}

void pool_unlock(pm_pool *pool)
{
    slab *leaving = pool->leaving;
    pool->leaving = NULL;
    if (pool->sharing != PM_SHARING_NONE)
        os_lock_give(&pool->lock);
    if (UNLIKELY(leaving != NULL))
        depot_put(leaving, NULL);
}

/* ---- slabs ---- */

void pool_accept(pm_pool *pool, slab *s)
{
    STORE(&s->pool, pool);
    slab_open(s, &pool->shape);
    slab_list_push(&pool->slabs, s);
    pool->empty++;
}

/* It is empty. */
static void slab_leave(pm_pool *pool, slab *s)
{
    slab_list_remove(&pool->slabs, s);
    pool->empty--;
    slab_close(s, &pool->shape);
    slab_disown(s);
    s->next = pool->leaving;
    pool->leaving = s;
}

void pool_shed(pm_pool *pool, size_t keep)
{
    for (slab *s = pool->slabs.first, *next; s && pool->slabs.count > keep; s = next) {
        next = s->next;
        if (slab_out(s) == 0)
            slab_leave(pool, s);
    }
}

static void slab_to_end(pm_pool *pool, slab *s)
{
    slab_list_remove(&pool->slabs, s);
    slab_list_append(&pool->slabs, s);
}

/* ---- blocks ---- */

static bool pool_has_free(const pm_pool *pool, const slab *s) { return s && !slab_is_full(s, &pool->shape); }

/* From at most REFILL_SLABS slabs; how many. */
static size_t slabs_take(pm_pool *pool, block ***end, size_t most)
{
    const size_class *c = &pool->shape;
    size_t taken = 0;
    slab *s = pool->slabs.first;
    for (int slabs = 0; slabs < REFILL_SLABS && taken < most && pool_has_free(pool, s); slabs++, s = pool->slabs.first) {
        size_t before = slab_out(s);
        *end = slab_take(s, c, *end, most - taken);
        taken += slab_out(s) - before;
        pool->empty -= before == 0;
        if (slab_is_full(s, c))
            slab_to_end(pool, s);
    }
    return taken;
}

bool pool_fill(pm_pool *pool, bin *b)
{
    size_t most = size_min(b->limit == 0 ? 1 : size_min(pool->shape.refill, b->limit), pool->most - pool->out);
    block *first = NULL, **end = &first;
    size_t taken = pool->pieces ? pieces_take(pool->pieces, pool->shape.size, &end, most) : slabs_take(pool, &end, most);
    bin_prepend(b, first, end, taken);
    pool->out += taken;
    if (pool->sharing == PM_SHARING_THREADS)
        pool->peak = size_max(pool->peak, pool->out);
    return taken > 0;
}

/* Gives back up to count blocks of the slab that the chain begins with. */
static size_t slab_run(pm_pool *pool, block **chain, size_t count)
{
    const size_class *c = &pool->shape;
    slab *s = slab_of(*chain);
    bool was_full = slab_is_full(s, c);
    size_t n = slab_give(s, c, chain, count);
    pool->empty += slab_out(s) == 0;
    if (was_full) {
        slab_list_remove(&pool->slabs, s);
        slab_list_push(&pool->slabs, s);
    }
    if (slab_out(s) == 0 && pool->empty > pool->grow && pool->slabs.count > pool->keep)
        slab_leave(pool, s);
    return n;
}

static size_t give_run(pm_pool *pool, block **chain, size_t count)
{
    size_t n = 1;
    if (pool->pieces) {
        block *p = *chain;
        *chain = p->next;
        pieces_give(pool->pieces, pool->shape.size, p);
    } else {
        n = slab_run(pool, chain, count);
    }
    pool->out -= n;
    return n;
}

void pool_give_back(pm_pool *pool, bin *b, size_t count)
{
    block *chain = bin_detach(b);
    while (count > 0 && chain) {
        size_t n = give_run(pool, &chain, count);
        b->room += (int32_t)n;
        count -= n;
    }
    bin_attach(b, chain);
}

void pool_give(pm_pool *pool, block *p)
{
    p->next = NULL;
    give_run(pool, &p, 1);
}

void pool_reset(pm_pool *pool)
{
    for (slab *s = pool->slabs.first; s; s = s->next)
        slab_reset(s, &pool->shape);
    for (piece *p = pool->pieces; p; p = p->next)
        piece_reset(p);
    pool->empty = (uint32_t)pool->slabs.count;
    pool->out = 0;
}

/* ---- check ---- */

void pool_check(pm_pool *pool)
{
    size_t out = 0, empty = 0;
    bool full_before = false;
    for (const slab *s = pool->slabs.first; s; s = s->next) {
        bool full = slab_is_full(s, &pool->shape);
        if (s->pool != pool || s->home != HEAP_POOL || (full_before && !full))
            report_abort("check: pool %s: slab %zu is not its own, or not in its place", pool->name, slab_index(s));
        slab_check(s, &pool->shape, true);
        full_before |= full;
        out += slab_out(s);
        empty += slab_out(s) == 0;
    }
    for (const piece *p = pool->pieces; p; p = p->next)
        out += p->blocks - p->free;
    if (out != pool->out || empty != pool->empty || out > pool->most || pool->own.room > pool->own.limit ||
        (pool->hand.limit && pool_used(pool) + bin_holds(&pool->hand) > pool->peak))
        report_abort("check: pool %s: %zu blocks out, %zu counted; %zu slabs empty, %u counted", pool->name, out, pool->out,
                     empty, pool->empty);
}

/* ---- records ---- */

/* Pools and arenas have their records in a pool of their own; its slabs say that they belong to none, so that no pointer to
 * a record is taken for a block. */
static pm_pool records = {.sharing = PM_SHARING_NONE, .most = SIZE_MAX, .grow = 1, .name = "records"};

static void *record_try(void)
{
    bin *b = &records.own; /* limit 0: one at a time */
    if (records.shape.size == 0) {
        class_shape(&records.shape, round_up(sizeof(pm_pool), 64), 64);
        records.shape.colours = 0;
    }
    if (!pool_fill(&records, b))
        return NULL;
    block *p = b->free;
    b->free = NULL;
    b->room = 0;
    return memset(p, 0, records.shape.size);
}

/* more: a guest's slab, or NULL. */
static void *record_locked(slab *more)
{
    os_lock_take(&pm_pools.lock);
    if (more) {
        pool_accept(&records, more);
        STORE(&more->pool, NULL);
    }
    void *record = record_try();
    os_lock_give(&pm_pools.lock);
    return record;
}

void *record_take(heap *h)
{
    void *record = record_locked(NULL);
    slab *more = record ? NULL : guest_slab(h); /* without the lock: it may be another heap's */
    return more ? record_locked(more) : record;
}

void record_give(void *record)
{
    pool_give(&records, record);
    pool_unlock(&records);
}

/* ---- all pools ---- */

static void bins_empty(heap *h)
{
    os_lock_take(&pm_pools.lock);
    for (uint32_t i = 0; i < pm_pools.bins; i++) {
        pm_pool *pool = pm_pools.of_bin[i];
        bin *b = &h->pool_bins[i];
        if (!pool || b->limit == 0)
            continue;
        pool_lock(pool);
        bin_recount(b); /* a fork may have come between the two stores of a push or pop */
        pool_give_back(pool, b, SIZE_MAX);
        pool->bins_begun--;
        b->limit = 0;
        b->room = 0;
        pool_unlock(pool);
    }
    os_lock_give(&pm_pools.lock);
}

static void all_visit(void (*each)(pm_pool *))
{
    os_lock_take(&pm_pools.lock);
    for (pm_pool *pool = pm_pools.first; pool; pool = pool->next) {
        if (pool->sharing == PM_SHARING_NONE)
            continue; /* another thread may be inside */
        pool_lock(pool);
        each(pool);
        pool_unlock(pool);
    }
    os_lock_give(&pm_pools.lock);
}

static void shed(pm_pool *pool) { pool_shed(pool, pool->keep); }
static void shed_all(void) { all_visit(shed); }
static void check_all(void) { all_visit(pool_check); }

static void free_block_of(void *p, slab *s)
{
    pm_pool *pool = LOAD(&s->pool);
    if (!pool)
        misuse_abort(&(misuse){.pointer = p, .what = "memory of an arena"});
    pm_pool_free(pool, p);
}

bool explicit_up(void)
{
    static const guests ours = {bins_empty, shed_all, check_all, free_block_of};
    if (!bringup_done())
        return false;
    if (UNLIKELY(!guests_here()))
        guests_register(&ours);
    return true;
}
