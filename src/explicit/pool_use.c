/* pool_use.c: Blocks out of explicit pools and back: the short ways, and what they fall back to.
 *
 * Two numbers of room make the short ways do without counting: alloc looks whether own.room is mark_room, free whether it is
 * above peak_room. THREADS have neither: what they count is out, which changes only under the lock. */
#include "ground/config.h"
#include "explicit/pool.h"
#include "pools/fork.h"
#include "ground/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* THREADS: the calling thread's; NONE: the pool's own; LOCKED: one without blocks or room. */
INLINE bin *bin_at_hand(pm_pool *pool)
{
    char *base = pool->in_pool ? (char *)pool : (char *)my_heap;
    return (bin *)(base + pool->bin_offset);
}

/* A heap's bin of this pool, at its first use there, or again after a visit. */
static void bin_begin(const pm_pool *pool, bin *b)
{
    if (b->limit == 0 && !pm_every_call_slow && !pool->visiting) {
        b->limit = pool->shape.limit;
        b->room = b->limit;
    }
}

/* ---- out ---- */

static bool mark_crossed(const pm_pool *pool, size_t out_before)
{
    return pool->on_mark && pool->sharing == PM_SHARING_THREADS && out_before < pool->mark && pool->out >= pool->mark;
}

/* Fills b. When that cannot be done, once: a new slab, or, with all blocks out, those that threads had at hand which a fork
 * has left behind. For either the lock is let go of. False: all out, or no memory. */
static bool draw(pm_pool *pool, bin *b, heap *h, size_t *crossings)
{
    for (bool last = false;; last = true) {
        size_t before = pool->out;
        if (b->free || pool_fill(pool, b)) {
            *crossings += mark_crossed(pool, before);
            return true;
        }
        bool all_out = pool->out >= pool->most;
        if (last || (all_out && !fork_left_heaps()))
            return false;
        pool_unlock(pool);
        slab *s = all_out ? NULL : guest_slab(h);
        if (all_out)
            fork_collect();
        pool_lock(pool);
        if (s)
            pool_accept(pool, s);
    }
}

/* Up to n blocks under one hold of the lock. With the thread marked as being on a slow path: the depot's lock is taken here,
 * and a signal handler's malloc must not come for it. */
static size_t take_locked(pm_pool *pool, heap *h, void **blocks, size_t n, size_t *crossings)
{
    bin once = {.limit = 0}; /* for a thread that has ended its heap */
    bin *b = pool->sharing != PM_SHARING_THREADS ? &pool->own : h ? pool_bin(pool, h) : &once;
    size_t got = 0;
    pool_lock(pool);
    if (h && pool->sharing == PM_SHARING_THREADS)
        bin_begin(pool, b);
    for (; got < n && (b->free || draw(pool, b, h, crossings)); got++) {
        blocks[got] = bin_pop(b);
        *crossings += b->room == pool->mark_room;
    }
    pool->failures += got < n && pool->overflow != PM_OVERFLOW_FORWARD;
    pool_unlock(pool);
    return got;
}

static void *forward(pm_pool *pool)
{
    size_t align = pool->align;
    void *p = align > QUANTUM ? aligned_alloc(align, pool->shape.size) : malloc(pool->shape.size);
    __atomic_fetch_add(p ? &pool->forwarded : &pool->failures, 1, __ATOMIC_RELAXED);
    return p;
}

static NOINLINE size_t take(pm_pool *pool, void **blocks, size_t n)
{
    heap *h = thread_heap();
    size_t got = 0, crossings = 0;
    if (!h || heap_enter(h)) { /* else a signal handler has come in between */
        got = take_locked(pool, h, blocks, n, &crossings);
        if (h)
            heap_leave(h);
    }
    for (; crossings > 0; crossings--)
        pool->on_mark(pool, pool->context);
    while (got < n && pool->overflow == PM_OVERFLOW_FORWARD && (blocks[got] = forward(pool)) != NULL)
        got++;
    if (got < n)
        errno = ENOMEM;
    return got;
}

static void *locked_pop(pm_pool *pool, bool *marked)
{
    bin *b = &pool->own;
    os_lock_take(&pool->lock);
    block *p = bin_pop(b);
    *marked = p && b->room == pool->mark_room;
    os_lock_give(&pool->lock);
    return p;
}

/* `popped`: a block that was taken already, by which the use has come to the mark; or NULL. */
static NOINLINE void *alloc_rest(pm_pool *pool, void *popped)
{
    bool marked = popped != NULL;
    if (!popped && pool->sharing == PM_SHARING_LOCKED)
        popped = locked_pop(pool, &marked);
    if (!popped)
        return take(pool, &popped, 1) ? popped : NULL;
    if (marked)
        pool->on_mark(pool, pool->context);
    return popped;
}

static void *refused(void)
{
    errno = EINVAL;
    return NULL;
}

INLINE void *alloc(pm_pool *pool)
{
    if (UNLIKELY(!pool))
        return refused();
    bin *b = bin_at_hand(pool);
    block *p = bin_pop(b);
    return LIKELY(p != NULL && b->room != pool->mark_room) ? p : alloc_rest(pool, p);
}

void *pm_pool_alloc(pm_pool *pool) { return alloc(pool); }

void *pm_pool_zalloc(pm_pool *pool)
{
    void *p = alloc(pool);
    return p ? memset(p, 0, pool->shape.size) : NULL;
}

size_t pm_pool_alloc_bulk(pm_pool *pool, void **blocks, size_t n)
{
    if (!pool || !blocks) {
        refused();
        return 0;
    }
    return n ? take(pool, blocks, n) : 0;
}

/* ---- back ---- */

/* With the lock. */
static void give(pm_pool *pool, bin *b, void *p)
{
    if (b->room > pool->peak_room)
        pool_note_peak(pool);
    if (b->room > 0) {
        bin_push(b, p);
        return;
    }
    pool_give(pool, p);
    pool_give_back(pool, b, b->limit / 2);
}

static void give_threads(pm_pool *pool, void **blocks, size_t n)
{
    bin once = {.limit = 0};
    heap *h = thread_heap();
    if (h && !heap_enter(h))
        return; /* from a signal handler within a slow path, where nobody may free: lost until reset */
    bin *b = h ? pool_bin(pool, h) : &once;
    size_t i = 0;
    for (; i < n && b->room > 0; i++)
        bin_push(b, blocks[i]);
    if (i < n) {
        pool_lock(pool);
        if (h)
            bin_begin(pool, b);
        for (; i < n; i++)
            give(pool, b, blocks[i]);
        pool_unlock(pool);
    }
    if (h)
        heap_leave(h);
}

/* What no pool handed out came from malloc, where that is what the pool does beyond its maximum. */
static bool came_from_malloc(const pm_pool *pool, const void *p)
{
    return pool->overflow == PM_OVERFLOW_FORWARD && (!region_holds(p) || LOAD(&slab_of(p)->home) != HEAP_POOL);
}

static void check_freed(const pm_pool *pool, const void *p)
{
    if (!region_holds(p) || LOAD(&slab_of(p)->pool) != pool)
        report_abort("pm_pool_free(%s, %p): this is no block of that pool", pool->name, p);
    slab_check_block(slab_of(p), &pool->shape, p);
}

/* Every block of `blocks` that is not the pool's own goes back to malloc; how many are left, moved to the front. */
static size_t sort_out(const pm_pool *pool, void **blocks, size_t n)
{
    size_t left = 0;
    for (size_t i = 0; i < n; i++) {
        if (!blocks[i])
            continue;
        if (came_from_malloc(pool, blocks[i])) {
            free(blocks[i]);
            continue;
        }
        if (pm_config.check || PM_HARDENED)
            check_freed(pool, blocks[i]);
        blocks[left++] = blocks[i];
    }
    return left;
}

static NOINLINE void give_all(pm_pool *pool, void **blocks, size_t n)
{
    if (!pool) {
        errno = EINVAL;
        return;
    }
    n = sort_out(pool, blocks, n);
    if (pool->sharing == PM_SHARING_THREADS) {
        give_threads(pool, blocks, n);
        return;
    }
    heap *h = heap_enter_mine(); /* an empty slab may go to the depot */
    pool_lock(pool);
    for (size_t i = 0; i < n; i++)
        give(pool, &pool->own, blocks[i]);
    pool_unlock(pool);
    heap_leave_mine(h);
}

static NOINLINE void give_one(pm_pool *pool, void *p) { give_all(pool, &p, 1); }

void pm_pool_free(pm_pool *pool, void *p)
{
    if (LIKELY(pool != NULL && p != NULL && !pool->looks_first)) {
        bin *b = bin_at_hand(pool);
        if (LIKELY(b->room > 0 && b->room <= pool->peak_room)) {
            bin_push(b, p);
            return;
        }
    }
    give_one(pool, p);
}

void pm_pool_free_bulk(pm_pool *pool, void **blocks, size_t n)
{
    if (blocks && n)
        give_all(pool, blocks, n);
}
