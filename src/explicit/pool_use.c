/* pool_use.c: Blocks out of explicit pools and back: the short ways, and what they fall back to. */
#include "explicit/pool.h"
#include "pools/fork.h"
#include "pools/misuse.h"

#include <stdlib.h>
#include <string.h>

#define BIN_FIRST 4 /* blocks that a thread's bin may keep at first */

/* THREADS: the calling thread's; else the pool's hand, which callers have mostly looked into themselves. */
INLINE bin *bin_at_hand(pm_pool *pool)
{
    char *base = UNLIKELY(pool->in_pool) ? (char *)pool : (char *)my_heap;
    return (bin *)(base + pool->bin_offset);
}

/* Half of a pool may be at hand: where thousands of threads take a block now and then, few for each. */
static size_t bin_share(const pm_pool *pool)
{
    size_t blocks = pool->most != SIZE_MAX ? pool->most : pool->slabs.count * pool->shape.per_slab;
    return size_max(1, size_min(pool->shape.limit, blocks / (2 * (size_t)pool->bins_begun)));
}

/* A heap's bin of this pool is about to be filled, or is full: it may keep twice as many as before. */
static void bin_fit(pm_pool *pool, bin *b)
{
    if (pm_every_call_slow)
        return;
    pool->bins_begun += b->limit == 0;
    uint16_t limit = (uint16_t)size_min(b->limit ? 2 * (size_t)b->limit : BIN_FIRST, bin_share(pool));
    b->room += limit - b->limit;
    b->limit = limit;
}

/* ---- out ---- */

static bool mark_crossed(const pm_pool *pool, size_t out_before)
{
    return pool->on_mark && pool->sharing == PM_SHARING_THREADS && out_before < pool->mark && pool->out >= pool->mark;
}

/* Slabs, one or as many as the pool grows by, or NULL. */
static slab *grow(const pm_pool *pool, heap *h)
{
    slab *chain = NULL;
    for (uint32_t i = 0; i < pool->grow && !LOAD(&pool->pieces); i++) {
        slab *s = guest_slab(h);
        if (!s)
            break;
        s->next = chain;
        chain = s;
    }
    return chain;
}

static void accept_all(pm_pool *pool, slab *chain)
{
    for (slab *next; chain; chain = next) {
        next = chain->next;
        pool_accept(pool, chain);
    }
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
        slab *chain = all_out ? NULL : grow(pool, h);
        if (all_out)
            fork_collect();
        pool_lock(pool);
        accept_all(pool, chain);
    }
}

/* LOCKED, NONE: a block has left own. True: by it the use has come to the mark. */
INLINE bool use_note(pm_pool *pool)
{
    size_t used = pool_used(pool);
    if (used > pool->peak)
        pool->peak = used;
    return pool->on_mark && used == pool->mark;
}

/* NONE: what own holds goes to the hand, as far as that breaks no mark and has room. */
static void hand_feed(pm_pool *pool)
{
    bin *own = &pool->own, *hand = &pool->hand;
    size_t room = size_min((size_t)hand->room, pool->peak - pool_used(pool) - bin_holds(hand)), n = size_min(room, bin_holds(own));
    if (n == 0)
        return;
    block *first = own->free, **end = &first;
    for (size_t i = 0; i < n && *end; i++)
        end = &(*end)->next;
    own->free = *end;
    own->room += (int32_t)n;
    bin_prepend(hand, first, end, n);
}

static size_t take_own(pm_pool *pool, heap *h, void **blocks, size_t n, size_t *crossings)
{
    size_t got = 0;
    while (got < n && (blocks[got] = bin_pop(&pool->hand)) != NULL)
        got++;
    for (; got < n && (pool->own.free || draw(pool, &pool->own, h, crossings)); got++) {
        blocks[got] = bin_pop(&pool->own);
        *crossings += use_note(pool);
    }
    hand_feed(pool);
    return got;
}

static size_t take_threads(pm_pool *pool, heap *h, void **blocks, size_t n, size_t *crossings)
{
    bin once = {.limit = 0}; /* for a thread that has ended its heap */
    bin *b = h ? pool_bin(pool, h) : &once;
    size_t got = 0;
    if (h && !b->free)
        bin_fit(pool, b);
    for (; got < n && (b->free || draw(pool, b, h, crossings)); got++)
        blocks[got] = bin_pop(b);
    return got;
}

/* Up to n blocks under one hold of the lock. With the thread marked as being on a slow path: the depot's lock is taken here,
 * and a signal handler's malloc must not come for it. */
static size_t take_locked(pm_pool *pool, heap *h, void **blocks, size_t n, size_t *crossings)
{
    pool_lock(pool);
    size_t got = pool->sharing == PM_SHARING_THREADS ? take_threads(pool, h, blocks, n, crossings) : take_own(pool, h, blocks, n, crossings);
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
    if (misuse_watched() && pool->ended)
        misuse_abort(&(misuse){.function = "pm_pool_alloc", .pointer = pool, .what = "the pool has ended", .pool = pool->name});
    if (!h || !h->inside) { /* else a signal handler has come in between */
        heap *entered = heap_enter_mine();
        got = take_locked(pool, h, blocks, n, &crossings);
        heap_leave_mine(entered);
    }
    for (; crossings > 0; crossings--)
        pool->on_mark(pool, pool->context);
    while (got < n && pool->overflow == PM_OVERFLOW_FORWARD && (blocks[got] = forward(pool)) != NULL)
        got++;
    if (got < n)
        errno = ENOMEM;
    return got;
}

/* A block of own, where that has one. */
static void *own_pop(pm_pool *pool, bool *marked)
{
    bool locks = pool->sharing == PM_SHARING_LOCKED && !os_single_thread();
    if (locks)
        pool_hold(pool);
    void *p = bin_pop(&pool->own);
    *marked = p && use_note(pool);
    if (locks)
        os_lock_give(&pool->lock);
    return p;
}

static NOINLINE void *alloc_rest(pm_pool *pool)
{
    bool marked = false;
    void *p = pool->in_pool ? own_pop(pool, &marked) : NULL;
    if (UNLIKELY(!p))
        return take(pool, &p, 1) ? p : NULL;
    if (UNLIKELY(marked))
        pool->on_mark(pool, pool->context);
    return p;
}

INLINE void *alloc(pm_pool *pool)
{
    if (UNLIKELY(!pool))
        return fail_with(EINVAL);
    void *p = bin_pop(bin_at_hand(pool));
    return LIKELY(p != NULL) ? p : alloc_rest(pool);
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
        fail_with(EINVAL);
        return 0;
    }
    return n ? take(pool, blocks, n) : 0;
}

/* ---- back ---- */

/* With the lock. */
static void give(pm_pool *pool, bin *b, void *p)
{
    if (b->room > 0) {
        bin_push(b, p);
        return;
    }
    pool_give(pool, p);
    pool_give_back(pool, b, bin_holds(b) - (size_t)b->limit / 2);
}

static void give_threads(pm_pool *pool, void **blocks, size_t n)
{
    bin once = {.limit = 0};
    heap *h = thread_heap();
    if (h && h->inside)
        return; /* from a signal handler within a slow path, where nobody may free: lost until reset */
    heap *entered = heap_enter_mine();
    bin *b = h ? pool_bin(pool, h) : &once;
    size_t i = 0;
    for (; i < n && b->room > 0; i++)
        bin_push(b, blocks[i]);
    if (i < n) {
        pool_lock(pool);
        if (h)
            bin_fit(pool, b);
        for (; i < n; i++)
            give(pool, b, blocks[i]);
        pool_unlock(pool);
    }
    heap_leave_mine(entered);
}

/* LOCKED, and NONE where the hand is not used: into own, while that has room. */
static bool own_push(pm_pool *pool, void *p)
{
    bool locks = pool->sharing == PM_SHARING_LOCKED && !os_single_thread(), fits;
    if (locks)
        pool_hold(pool);
    fits = pool->own.room > 0 && pool->hand.limit == 0;
    if (fits)
        bin_push(&pool->own, p);
    if (locks)
        os_lock_give(&pool->lock);
    return fits;
}

/* What no pool handed out came from malloc, where that is what the pool does beyond its maximum. */
static bool came_from_malloc(const pm_pool *pool, const void *p)
{
    if (pool->overflow != PM_OVERFLOW_FORWARD)
        return false;
    return LOAD(&pool->pieces) ? !pm_pool_owns(pool, p) : !region_holds(p) || LOAD(&slab_of(p)->home) != HEAP_POOL;
}

static void check_freed(const pm_pool *pool, const void *p)
{
    if (!pm_pool_owns(pool, p))
        misuse_abort(&(misuse){.function = "pm_pool_free", .pointer = p, .what = "this is no block of that pool", .pool = pool->name});
    if (!LOAD(&pool->pieces))
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
        if (misuse_watched())
            check_freed(pool, blocks[i]);
        blocks[left++] = blocks[i];
    }
    return left;
}

static NOINLINE void give_all(pm_pool *pool, void **blocks, size_t n)
{
    if (!pool) {
        if (misuse_watched() && n > 0 && blocks[0])
            misuse_abort(&(misuse){.function = "pm_pool_free", .pointer = blocks[0], .what = "there is no pool of that size or name"});
        errno = EINVAL;
        return;
    }
    n = sort_out(pool, blocks, n);
    if (pool->sharing == PM_SHARING_THREADS) {
        give_threads(pool, blocks, n);
        return;
    }
    heap *h = pool_enter(pool);
    bin *b = pool->hand.limit ? &pool->hand : &pool->own;
    for (size_t i = 0; i < n; i++)
        give(pool, b, blocks[i]);
    pool_leave(pool, h);
}

static NOINLINE void give_one(pm_pool *pool, void *p)
{
    if (!pool || !p || pool->looks_first || !pool->in_pool || !own_push(pool, p))
        give_all(pool, &p, 1);
}

void pm_pool_free(pm_pool *pool, void *p)
{
    if (LIKELY(pool != NULL && p != NULL && !pool->looks_first)) {
        bin *b = bin_at_hand(pool);
        if (LIKELY(b->room > 0)) {
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
