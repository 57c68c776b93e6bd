/* hardened.c: see hardened.h. */
#include "pools/hardened.h"

#include "ground/config.h"
#include "ground/os.h"
#include "pools/alloc.h"
#include "pools/depot.h"
#include "pools/keeper.h"
#include "pools/threads.h"

#include <string.h>

#define CANARY_LEAST 16 /* bytes behind what was asked for, with the tail */
#define TEXT_NEVER 0x8080808080808080u /* in a canary: no zero and no letter passes for a part of it */
#define CANARY_MOST 32  /* without it */

/* ---- tails ---- */

/* Bits of a tail, before it is hidden; those above the fields are zero, so that no other word passes for one. */
#define TAIL_LIVE 1u
#define TAIL_FREED 2u
#define TAIL_BUSY 3u /* on the way from one to the other: what lies before it is not looked at */
#define STATE_BITS 2
#define BY_BITS 2
#define SIZE_BITS 20 /* or milliseconds, which wrap after 17 minutes */
#define THREAD_BITS 22
static_assert(BLOCK_MAX < (size_t)1 << SIZE_BITS, "a size fits");

static uint64_t secret, secret_odd;

INLINE uint64_t key_of(const void *p)
{
    uint64_t k = ((uintptr_t)p ^ secret) * secret_odd;
    return k ^ k >> 32;
}

INLINE uint64_t tail_live(size_t size, maker by) { return TAIL_LIVE | (uint64_t)by << STATE_BITS | (uint64_t)size << (STATE_BITS + BY_BITS); }
INLINE uint64_t tail_freed(uint32_t now, uint32_t thread)
{
    uint64_t ms = now & ((1u << SIZE_BITS) - 1);
    return TAIL_FREED | ms << (STATE_BITS + BY_BITS) | (uint64_t)thread << (STATE_BITS + BY_BITS + SIZE_BITS);
}

static bool tail_is_busy(uint64_t shown) { return shown == TAIL_BUSY; }
INLINE block_state tail_state(uint64_t shown)
{
    if (shown >> (STATE_BITS + BY_BITS + SIZE_BITS) == 0 && shown % 4 == TAIL_LIVE)
        return BLOCK_LIVE;
    return shown >> (STATE_BITS + BY_BITS + SIZE_BITS + THREAD_BITS) == 0 && shown % 4 == TAIL_FREED ? BLOCK_FREED : BLOCK_UNKNOWN;
}
INLINE size_t tail_size(uint64_t shown) { return shown >> (STATE_BITS + BY_BITS) & ((1u << SIZE_BITS) - 1); }
INLINE maker tail_by(uint64_t shown) { return (maker)(shown >> STATE_BITS & ((1u << BY_BITS) - 1)); }

INLINE void tail_busy(uint64_t *at, uint64_t key)
{
    STORE(at, TAIL_BUSY ^ key);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

/* ---- what lies before the tail ---- */

INLINE size_t canary_bytes(size_t size, const size_class *c) { return size_min(c->size - sizeof(uint64_t) - size, CANARY_MOST) & ~(size_t)7; }

/* Four words, which meet where there are fewer. */
INLINE void canary_put(char *p, size_t size, const size_class *c, uint64_t key)
{
    size_t last = canary_bytes(size, c) - sizeof key, second = size_min(last, sizeof key);
    key = ~key | TEXT_NEVER;
    p += size;
    memcpy(p, &key, sizeof key);
    memcpy(p + second, &key, sizeof key);
    memcpy(p + last - second, &key, sizeof key);
    memcpy(p + last, &key, sizeof key);
}

INLINE bool canary_holds(const char *p, size_t size, const size_class *c, uint64_t key)
{
    size_t last = canary_bytes(size, c) - sizeof key, second = size_min(last, sizeof key);
    uint64_t word[4];
    key = ~key | TEXT_NEVER;
    p += size;
    memcpy(&word[0], p, sizeof key);
    memcpy(&word[1], p + second, sizeof key);
    memcpy(&word[2], p + last - second, sizeof key);
    memcpy(&word[3], p + last, sizeof key);
    return ((word[0] ^ key) | (word[1] ^ key) | (word[2] ^ key) | (word[3] ^ key)) == 0;
}

typedef uint64_t pair __attribute__((vector_size(16), may_alias)); /* one register of every x86-64 and AArch64 */

/* From a block's beginning to its tail, or to a multiple of 16. */
INLINE bool is_zero(const char *from, const char *to)
{
    const pair *at = (const pair *)(const void *)from, *end = at + (size_t)(to - from) / sizeof *at;
    pair sum = {0}, other = {0};
    for (; at + 4 <= end; at += 4) {
        sum |= at[0] | at[1];
        other |= at[2] | at[3];
    }
    for (; at < end; at++)
        sum |= *at;
    sum |= other;
    return (sum[0] | sum[1] | ((const char *)end < to ? *(const uint64_t *)(const void *)end : 0)) == 0;
}

/* A small block, but for its tail. */
INLINE void zero_all(char *p, const size_class *c)
{
    pair *at = (pair *)(void *)p, *end = at + (c->size / sizeof *at - 1);
    *(uint64_t *)(void *)end = 0;
    while (at < end)
        *at++ = (pair){0};
}

/* ---- reports ---- */

static COLD misuse describe(const char *p, const size_class *c, uint64_t tail)
{
    uint64_t shown = tail ^ key_of(p);
    misuse m = {.block = p, .bytes = c->size, .state = tail == 0 ? BLOCK_NEVER : tail_state(shown)};
    if (m.state == BLOCK_LIVE) {
        m.asked = tail_size(shown);
        m.made_by = tail_by(shown);
    } else if (m.state == BLOCK_FREED) {
        m.freed_ago = ((uint32_t)os_now_ms() - (uint32_t)tail_size(shown)) & ((1u << SIZE_BITS) - 1);
        m.freed_by = (uint32_t)(shown >> (STATE_BITS + BY_BITS + SIZE_BITS));
    }
    return m;
}

static COLD void __attribute__((noreturn)) stop(misuse m, const void *pointer, call c, const char *what, const void *caller)
{
    m.pointer = pointer;
    m.call = c;
    m.what = what;
    m.caller = caller;
    misuse_abort(&m);
}

static COLD misuse describe_at(const void *p)
{
    const size_class *c = &pm_classes[slab_of(p)->klass];
    return describe(p, c, *block_tail(p, c));
}

#define PAST "written past its end"
#define BEFORE "written before its beginning"
#define WRITTEN "written to after it was freed"

/* ---- a block looked at from anywhere ---- */

/* What is wrong with a block whose tail was `tail`, or NULL. */
static const char *block_wrong(const char *p, const size_class *c, uint64_t tail)
{
    uint64_t key = key_of(p), shown = tail ^ key;
    block_state state = tail_state(shown);
    if (state == BLOCK_LIVE)
        return tail_size(shown) + CANARY_LEAST <= c->size && canary_holds(p, tail_size(shown), c, key) ? NULL : PAST;
    if (state != BLOCK_FREED && tail != 0)
        return tail_is_busy(shown) ? NULL : PAST;
    return is_zero(p, p + c->size - sizeof tail) ? NULL : WRITTEN;
}

/* Another thread may be changing what is looked at: then the tail is another one a moment later. One that has become what it was
 * again meanwhile is not so each time. */
#define TRIES 8

static bool tail_stays(const uint64_t *at, uint64_t tail)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return LOAD(at) == tail;
}

/* NULL too when its slab has changed hands. */
static const char *block_wrong_still(const slab *s, const char *p, const size_class *c)
{
    const char *what = NULL;
    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t tail = __atomic_load_n(block_tail(p, c), __ATOMIC_ACQUIRE);
        what = block_wrong(p, c, tail);
        if (!what || !tail_stays(block_tail(p, c), tail) || !heap_is_real(LOAD(&s->home)) || &pm_classes[LOAD(&s->klass)] != c)
            return NULL;
    }
    return what;
}

/* The 32 bytes before p, the beginning of a block, belong to the one before: its tail, and a canary or zeros. */
INLINE bool before_is_good(const char *p, const size_class *c, uint64_t tail)
{
    const char *q = p - c->size;
    uint64_t key = key_of(q), shown = tail ^ key;
    block_state state = tail_state(shown);
    if (state == BLOCK_LIVE)
        return tail_size(shown) + CANARY_LEAST <= c->size && canary_holds(q, tail_size(shown), c, key);
    const uint64_t *words = (const uint64_t *)(const void *)(p - 32);
    return state == BLOCK_FREED || tail == 0 ? (words[0] | words[1] | words[2]) == 0 : tail_is_busy(shown);
}

INLINE bool before_holds(const char *p, const size_class *c)
{
    const uint64_t *at = block_tail(p - c->size, c);
    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t tail = __atomic_load_n(at, __ATOMIC_ACQUIRE);
        if (LIKELY(before_is_good(p, c, tail)) || !tail_stays(at, tail))
            return true;
    }
    return false;
}

/* ---- blocks of no bytes: addresses that nobody may touch ---- */

#define NOTHINGS 65536
static char *nothing;                      /* NOTHINGS quanta of address space */
static uint64_t nothing_live[NOTHINGS / 64] RARE; /* a bit each; atomic */
static uint32_t nothing_next;              /* atomic */

static void *nothing_take(void)
{
    for (int tries = 0; nothing && tries < 64; tries++) {
        uint32_t i = __atomic_fetch_add(&nothing_next, 1, __ATOMIC_RELAXED) % NOTHINGS;
        uint64_t bit = (uint64_t)1 << i % 64;
        if (!(__atomic_fetch_or(&nothing_live[i / 64], bit, __ATOMIC_RELAXED) & bit))
            return nothing + i * QUANTUM;
    }
    return NULL;
}

INLINE bool nothing_holds(const void *p) { return (size_t)((const char *)p - nothing) < NOTHINGS * QUANTUM; }

static void nothing_check(const void *p, call c, bool give, const void *caller)
{
    size_t i = (size_t)((const char *)p - nothing) / QUANTUM;
    uint64_t bit = (uint64_t)1 << i % 64;
    misuse m = {.block = p, .own_pages = true};
    if ((uintptr_t)p % QUANTUM)
        stop(m, p, c, "no block begins there", caller);
    uint64_t was = give ? __atomic_fetch_and(&nothing_live[i / 64], ~bit, __ATOMIC_RELAXED) : LOAD(&nothing_live[i / 64]);
    if (!(was & bit))
        stop(m, p, c, c <= CALL_DELETE_ARRAY ? "double free" : "freed before", caller);
}

/* ---- out ---- */

/* Now and then: who and when we are. */
static void keeper_look(keeper *k, heap *h)
{
    keeper_collect_late(k, h);
    k->now = (uint32_t)os_now_ms();
    if (k->thread == 0 || k->epoch != pm_registry.epoch) {
        k->thread = os_thread();
        k->epoch = pm_registry.epoch;
    }
}

/* Blocks for the hand; one of them, or one of a larger class at the limit, or NULL. The tails of new blocks are written to, so
 * that their pages come by one fault, not by two. */
static NOINLINE block *refill(keeper *k, heap *h, unsigned klass)
{
    bin *b = &h->bins[klass];
    block *dealt[HAND_BLOCKS], *p = NULL;
    size_t n = 0, most = keeper_deals(&pm_classes[klass]);
    if (k) {
        keeper_look(k, h);
        p = keeper_take(k, h, klass); /* a signal handler's */
    }
    if (!p)
        p = alloc_fill(h, b);
    alloc_housekeep(h);
    if (!k || !p || k->held[klass] > 0 || slab_of(p)->klass != klass)
        return p;
    for (; n < most && p; p = n < most ? heap_fill(h, b) : NULL)
        dealt[n++] = p;
    keeper_deal(k, h, klass, dealt, n);
    return keeper_take(k, h, klass);
}

/* The block given back last is where a stale pointer is most likely to write, and its beginning most of all. */
INLINE void last_check(const keeper *k, const void *caller)
{
    const uint64_t *p = k->last;
    if (UNLIKELY(p && (p[0] | p[1])))
        stop(describe_at(p), p, CALL_MALLOC, WRITTEN, caller);
}

/* The block, of class c, is as it was left, and becomes the program's. */
INLINE void *dress(char *p, const size_class *c, size_t size, maker by, const void *caller)
{
    uint64_t *at = block_tail(p, c), key = key_of(p), tail = c->size >= 4 * KIB ? __atomic_fetch_or(at, 0, __ATOMIC_RELAXED) : *at;
    bool fresh = tail == 0 && c->size >= 4 * KIB && slab_of(p)->state == SLAB_ZEROED;
    if (UNLIKELY(tail != 0 && tail_state(tail ^ key) != BLOCK_FREED))
        stop(describe(p, c, tail), p, CALL_MALLOC, tail_state(tail ^ key) == BLOCK_LIVE ? "handed out twice" : WRITTEN, caller);
    if (UNLIKELY(!fresh && !is_zero(p, p + c->size - sizeof tail)))
        stop(describe(p, c, tail), p, CALL_MALLOC, WRITTEN, caller);
    tail_busy(at, key);
    canary_put(p, size, c, key);
    __atomic_store_n(at, tail_live(size, by) ^ key, __ATOMIC_RELEASE);
    return p;
}

static NOINLINE block *take_slow(unsigned klass)
{
    heap *h = thread_heap();
    if (!h)
        return alloc_orphan(klass);
    if (!heap_enter(h))
        return NULL;
    block *p = refill(keeper_of(h), h, klass);
    heap_leave(h);
    return p;
}

/* A block at hand, or NULL. */
INLINE char *take(unsigned klass, const void *caller)
{
    heap *h = my_heap;
    keeper *k = keeper_here(h);
    block *p = NULL;
    if (LIKELY(k && keeper_enter(h))) {
        last_check(k, caller);
        p = keeper_take(k, h, klass);
        keeper_leave(h);
    }
    return (char *)p;
}

void *hardened_take(size_t size, maker by, const void *caller)
{
    if (UNLIKELY(size - 1 >= BLOCK_MAX - CANARY_LEAST || pm_config.guard))
        return NULL;
    unsigned klass = class_of(size + CANARY_LEAST);
    char *p = take(klass, caller);
    return LIKELY(p != NULL) ? dress(p, &pm_classes[klass], size, by, caller) : NULL;
}

INLINE unsigned class_for(size_t size, size_t align)
{
    if (size > BLOCK_MAX - CANARY_LEAST || align > ALIGN_POOLED)
        return CLASS_NONE;
    if (align <= QUANTUM)
        return class_of(size + CANARY_LEAST);
    classes_align();
    return class_aligned(size + CANARY_LEAST, align);
}

static bool inside(void) { return heap_is_real(my_heap) && my_heap->inside; }

void *hardened_alloc(size_t size, size_t align, maker by, const void *caller)
{
    void *p = size == 0 && align <= QUANTUM ? nothing_take() : NULL;
    unsigned klass = class_for(size, align);
    if (p)
        return p;
    if (klass == CLASS_NONE || (UNLIKELY(pm_config.guard) && guard_due(1)))
        p = inside() ? NULL : guard_alloc(size, align, by, caller);
    if (p || klass == CLASS_NONE)
        return p;
    p = take(klass, caller);
    p = p ? p : take_slow(klass);
    return p ? dress(p, &pm_classes[slab_of(p)->klass], size, by, caller) : NULL; /* at the limit, of a larger class */
}

/* ---- back ---- */

static COLD void __attribute__((noreturn)) stop_nowhere(const char *p, call c, const void *caller)
{
    const slab *s = slab_of(p);
    misuse m = {.block = NULL};
    if (!heap_is_real(LOAD(&s->home)))
        stop(m, p, c, c <= CALL_DELETE_ARRAY ? "double free, or no block was handed out there" : "freed before", caller);
    const size_class *size = &pm_classes[LOAD(&s->klass)];
    size_t number = (size_t)(p - slab_begin(s)) / size->size;
    const char *begin = slab_begin(s) + number * size->size;
    if (p >= slab_begin(s) && number < size->per_slab)
        m = describe(begin, size, LOAD(block_tail(begin, size)));
    stop(m, p, c, "no block begins there", caller);
}

/* The class of the block that begins at p, which is in the region; all else is told. NULL: a guest's. Malloc's slabs have neither
 * heads nor colours here. */
INLINE const size_class *class_checked(const char *p, call c, const void *caller)
{
    const slab *s = slab_of(p);
    const heap *home = LOAD(&s->home);
    if (UNLIKELY(home == HEAP_POOL))
        return NULL;
    const size_class *size = &pm_classes[LOAD(&s->klass)];
    size_t offset = (region_offset(p) & (SLAB_SIZE - 1)) - SLAB_GUARD, number = offset * size->inverse >> 32;
    if (UNLIKELY(!heap_is_real(home) || number >= size->per_slab || number * size->size != offset))
        stop_nowhere(p, c, caller);
    return size;
}

static COLD void __attribute__((noreturn)) stop_block(const char *p, const size_class *size, call c, const void *caller)
{
    uint64_t tail = *block_tail(p, size);
    if (tail_state(tail ^ key_of(p)) == BLOCK_FREED && !is_zero(p, p + size->size - sizeof tail)) /* a tail whose first bytes were written over */
        stop((misuse){.block = p, .bytes = size->size}, p, c, "written past its end, or double free", caller);
    if (tail_state(tail ^ key_of(p)) == BLOCK_FREED)
        stop(describe(p, size, tail), p, c, c <= CALL_DELETE_ARRAY ? "double free" : "freed before", caller);
    stop(describe(p, size, tail), p, c, tail == 0 ? "no block was handed out there" : PAST, caller);
}

/* What the tail of a block in use says; a block that is not, or was written over, is told. */
INLINE uint64_t live_checked(const char *p, const size_class *size, call c, const void *caller)
{
    uint64_t key = key_of(p), tail = *block_tail(p, size), shown = tail ^ key;
    if (UNLIKELY(tail_state(shown) != BLOCK_LIVE || tail_size(shown) + CANARY_LEAST > size->size || !canary_holds(p, tail_size(shown), size, key)))
        stop_block(p, size, c, caller);
    if (UNLIKELY((region_offset(p) & (SLAB_SIZE - 1)) != SLAB_GUARD && !before_holds(p, size)))
        stop(describe(p, size, tail), p, c, BEFORE, caller);
    return shown;
}

/* Zeroed, and back to where it is kept. A thread that has no keeper makes one; where a signal handler has come in between, it is
 * for later. */
INLINE void give(char *p, const size_class *size, size_t asked, uint64_t key)
{
    heap *h = LIKELY(heap_is_real(my_heap)) ? my_heap : thread_heap();
    keeper *k = h ? keeper_of(h) : NULL;
    bool entered = LIKELY(k != NULL) && keeper_enter(h), send = false;
    uint64_t *at = block_tail(p, size);
    block *freed = (block *)(void *)p;
    tail_busy(at, key);
    if (LIKELY(size->size <= 16 * sizeof(pair)))
        zero_all(p, size);
    else
        memset(p, 0, asked + canary_bytes(asked, size));
    __atomic_store_n(at, tail_freed(k ? k->now : (uint32_t)os_now_ms(), k ? k->thread : os_thread()) ^ key, __ATOMIC_RELEASE);
    if (UNLIKELY(!entered)) {
        k ? keeper_late(k, freed) : keeper_pass(freed);
        return;
    }
    k->last = (const uint64_t *)(const void *)p;
    send = keeper_quarantine(k, h, freed, (unsigned)(size - pm_classes));
    keeper_leave(h);
    if (UNLIKELY(send))
        keeper_send(k, h);
}

static COLD void __attribute__((noreturn)) stop_call(const char *p, const size_class *size, uint64_t shown, call c, size_t said, const void *caller)
{
    misuse m = describe(p, size, *block_tail(p, size));
    misuse_of_call(&m, c, tail_by(shown), tail_size(shown), said);
    stop(m, p, c, m.what, caller);
}

bool hardened_free(void *p, call c, size_t said, const void *caller)
{
    if (UNLIKELY(!region_holds(p))) {
        if (!nothing_holds(p))
            return LOAD(&pm_guarding) && guard_free(p, c, said, caller);
        nothing_check(p, c, true, caller);
        return true;
    }
    const size_class *size = class_checked(p, c, caller);
    if (UNLIKELY(!size)) {
        free_other(p, slab_of(p));
        return true;
    }
    uint64_t shown = live_checked(p, size, c, caller);
    if (UNLIKELY(maker_of(c) != tail_by(shown) || (said != SIZE_MAX && said != tail_size(shown))))
        stop_call(p, size, shown, c, said, caller);
    if (UNLIKELY(watchers_wait()))
        watch_free(p, tail_size(shown));
    give(p, size, tail_size(shown), shown ^ *block_tail(p, size));
    return true;
}

size_t hardened_size(const void *p, call c, const void *caller)
{
    if (UNLIKELY(!region_holds(p))) {
        if (!nothing_holds(p))
            return LOAD(&pm_guarding) ? guard_size(p, c, caller) : SIZE_MAX;
        nothing_check(p, c, false, caller);
        return 0;
    }
    const size_class *size = class_checked(p, c, caller);
    if (UNLIKELY(!size))
        return block_size_of(p);
    uint64_t shown = *block_tail(p, size) ^ key_of(p);
    bool asks_only = c == CALL_USABLE_SIZE && tail_state(shown) == BLOCK_LIVE; /* what lies around it is looked at when it is freed */
    return tail_size(LIKELY(asks_only) ? shown : live_checked(p, size, c, caller));
}

/* ---- all ---- */

static void slab_look(const slab *s, call c)
{
    const size_class *size = &pm_classes[LOAD(&s->klass)];
    const char *p = slab_first(s, size);
    size_t n = size_min(LOAD(&s->high) + 1UL, LOAD(&size->per_slab)); /* and one that was never handed out: its neighbour was */
    for (size_t i = 0; i < n && heap_is_real(LOAD(&s->home)); i++, p += size->size) {
        const char *what = block_wrong_still(s, p, size);
        if (UNLIKELY(what != NULL))
            stop(describe(p, size, *block_tail(p, size)), p, c, what, NULL);
    }
}

static bool is_empty(const slab *s) { return LOAD(&s->home) == HEAP_NOBODY && (LOAD(&s->state) == SLAB_DIRTY || slab_in_use(s)); }

/* In the depot, or kept by a heap for later: all of it is zero. */
static void empty_look(const slab *s, call c)
{
    const char *p = slab_begin(s), *end = p + SLAB_ROOM;
    for (int tries = 0; tries < TRIES; tries++)
        if (is_zero(p, end) || !is_empty(s))
            return;
    while (p < end - 16 && is_zero(p, p + 16))
        p += 16;
    size_t bytes = size_max(LOAD(&pm_classes[LOAD(&s->klass)].size), QUANTUM);
    const char *first = p - (size_t)(p - slab_begin(s)) % bytes;
    stop((misuse){.block = first, .bytes = bytes, .state = BLOCK_FREED}, p, c, WRITTEN, NULL);
}

void hardened_check(call c)
{
    for (size_t i = 0, n = LOAD(&pm_depot.fresh); i < n; i++) {
        const slab *s = &pm_region.slabs[i];
        if (heap_is_real(LOAD(&s->home)) && slab_in_use(s))
            slab_look(s, c);
        else if (is_empty(s))
            empty_look(s, c);
    }
    guard_check(c);
}

void hardened_init(void)
{
    secret = os_secret();
    secret_odd = os_secret() | 1;
    nothing = os_reserve(NOTHINGS * QUANTUM);
}
