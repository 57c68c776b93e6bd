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

/* A tail, before it is hidden. Which one it is shows in its highest bit alone; those above are zero, so that no other word passes for
 * one: of a block in use
 *   1 | how it was made: 7 bits | size: 20 bits
 * of a free one its keeper's stamp; or on the way from one to the other, when what lies before it is not looked at. */
#define SIZE_BITS 20
#define LIVE_BITS (SIZE_BITS + MADE_BITS)
#define TAIL_BUSY ((uint64_t)1 << 63)
static_assert(BLOCK_MAX < (size_t)1 << SIZE_BITS && LIVE_BITS < STAMP_BITS, "a size fits");

static uint64_t secret, secret_odd;

/* The product's lowest four bits are the same for all blocks: they end up highest. */
INLINE uint64_t key_of(const void *p) { return __builtin_bswap64(((uintptr_t)p ^ secret) * secret_odd); }

INLINE uint64_t tail_live(size_t size, made how) { return (uint64_t)1 << LIVE_BITS | (uint64_t)how << SIZE_BITS | (uint64_t)size; }
INLINE bool tail_is_live(uint64_t shown) { return shown >> LIVE_BITS == 1; }
INLINE bool tail_is_freed(uint64_t shown) { return shown >> STAMP_BITS == 1; }
INLINE size_t tail_size(uint64_t shown) { return shown & ((1u << SIZE_BITS) - 1); }
INLINE made tail_made(uint64_t shown) { return (made)(shown >> SIZE_BITS) & ((1 << MADE_BITS) - 1); }
static block_state tail_state(uint64_t shown) { return tail_is_live(shown) ? BLOCK_LIVE : tail_is_freed(shown) ? BLOCK_FREED : BLOCK_UNKNOWN; }
static bool tail_is_busy(uint64_t shown) { return shown == TAIL_BUSY; }
/* Of a block in use that g may give back: by one comparison. */
INLINE bool tail_fits(uint64_t shown, giving g)
{
    uint64_t looked = g >> 16, how = g >> 8 & looked;
    return (shown & (UINT64_MAX << LIVE_BITS | looked << SIZE_BITS)) == ((uint64_t)1 << LIVE_BITS | how << SIZE_BITS);
}

INLINE void tail_busy(uint64_t *at, uint64_t key)
{
    STORE(at, TAIL_BUSY ^ key);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

/* ---- what lies before the tail ---- */

/* One register of every x86-64 and AArch64. */
typedef uint64_t pair __attribute__((vector_size(16), may_alias));

INLINE bool pair_is_zero(pair a) { return (a[0] | a[1]) == 0; }
INLINE void word_put(char *p, uint64_t word) { memcpy(p, &word, sizeof word); }
INLINE uint64_t word_at(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}
/* Where the words of a canary lie, from p, the end of what was asked for, to the tail: up to four, eight bytes apart. Where there is room for
 * fewer some are the same: no branch, since that depends on what was asked for. */
typedef struct canary {
    char *first, *last;
    size_t step; /* of the second from the first, and of the third from the last */
} canary;

INLINE canary canary_place(const char *p, size_t room)
{
    size_t last = size_min(room - 8, CANARY_MOST - 8) & ~(size_t)7, step = last / 2 & ~(size_t)7;
    return (canary){(char *)(uintptr_t)p, (char *)(uintptr_t)p + last, step};
}
INLINE uint64_t canary_word(uint64_t key) { return ~key | TEXT_NEVER; }

INLINE void canary_put(char *p, const uint64_t *tail, uint64_t key)
{
    canary c = canary_place(p, (size_t)((const char *)tail - p));
    key = canary_word(key);
    word_put(c.first, key);
    word_put(c.first + c.step, key);
    word_put(c.last - c.step, key);
    word_put(c.last, key);
}

/* False too where there is no room for one. */
INLINE bool canary_holds(const char *p, const uint64_t *tail, uint64_t key)
{
    ptrdiff_t room = (const char *)tail - p;
    if (UNLIKELY(room < 8))
        return false;
    canary c = canary_place(p, (size_t)room);
    key = canary_word(key);
    return ((word_at(c.first) ^ key) | (word_at(c.first + c.step) ^ key) | (word_at(c.last - c.step) ^ key) | (word_at(c.last) ^ key)) == 0;
}

/* Blocks up to this size are written over by an own loop, and it does not matter whether their page is touched. */
#define SHORT_BYTES 1024

/* A block's words before its tail: pairs, and one more word. Four pairs at a time, the last four once more; of up to three each, or the middle
 * one twice. */
INLINE bool is_zero(const char *p, const uint64_t *tail)
{
    const pair *at = (const pair *)(const void *)p, *end = (const pair *)(const void *)(tail - 1);
    pair sum = {tail[-1], 0};
    if (end - at < 4)
        return pair_is_zero(sum | at[0] | at[(end - at) / 2] | end[-1]);
    for (; at < end - 4; at += 4)
        sum = sum | at[0] | at[1] | at[2] | at[3];
    return pair_is_zero(sum | end[-4] | end[-3] | end[-2] | end[-1]);
}

/* The same, written. */
INLINE void zero_all(char *p, uint64_t *tail)
{
    pair *at = (pair *)(void *)p, *end = (pair *)(void *)(tail - 1);
    tail[-1] = 0;
    if (end - at < 4) {
        at[0] = at[(end - at) / 2] = end[-1] = (pair){0};
        return;
    }
    for (; at < end - 4; at += 4) {
        __asm__ volatile("" : : : "memory"); /* no memset */
        at[0] = at[1] = at[2] = at[3] = (pair){0};
    }
    end[-4] = end[-3] = end[-2] = end[-1] = (pair){0};
}

/* ---- reports ---- */

static COLD misuse describe(const char *p, const size_class *c, uint64_t tail)
{
    uint64_t shown = tail ^ key_of(p);
    misuse m = {.block = p, .bytes = c->size, .state = tail == 0 ? BLOCK_NEVER : tail_state(shown)};
    if (m.state == BLOCK_LIVE) {
        m.asked = tail_size(shown);
        m.made = tail_made(shown);
    } else if (m.state == BLOCK_FREED) {
        m.freed_ago = ((uint32_t)os_now_ms() - (uint32_t)shown) & ((1u << STAMP_MS_BITS) - 1);
        m.freed_by = (uint32_t)((shown ^ (uint64_t)1 << STAMP_BITS) >> STAMP_MS_BITS);
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

static COLD void __attribute__((noreturn)) stop_at(const char *p, call c, const char *what, const void *caller)
{
    const size_class *size = &pm_classes[slab_of(p)->klass];
    stop(describe(p, size, *block_tail(p, size)), p, c, what, caller);
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
        return canary_holds(p + tail_size(shown), block_tail(p, c), key) ? NULL : PAST;
    if (state != BLOCK_FREED && tail != 0)
        return tail_is_busy(shown) ? NULL : PAST;
    return is_zero(p, block_tail(p, c)) ? NULL : WRITTEN;
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

/* The 32 bytes before p, the beginning of a block, belong to the one before, whose tail was `tail`: that, and a canary or zeros. */
INLINE bool before_is_good(const char *p, size_t bytes, uint64_t tail)
{
    const char *q = p - bytes;
    uint64_t key = key_of(q), shown = tail ^ key;
    const uint64_t *words = (const uint64_t *)(const void *)(p - 32);
    if (tail_is_live(shown))
        return canary_holds(q + tail_size(shown), &words[3], key);
    return tail_is_freed(shown) || tail == 0 ? (words[0] | words[1] | words[2]) == 0 : tail_is_busy(shown);
}

static NOINLINE bool before_holds_still(const char *p, size_t bytes)
{
    const uint64_t *at = (const uint64_t *)(const void *)p - 1;
    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t tail = __atomic_load_n(at, __ATOMIC_ACQUIRE);
        if (before_is_good(p, bytes, tail) || !tail_stays(at, tail))
            return true;
    }
    return false;
}

INLINE bool before_holds(const char *p, size_t bytes)
{
    return LIKELY(before_is_good(p, bytes, __atomic_load_n((const uint64_t *)(const void *)p - 1, __ATOMIC_ACQUIRE))) ||
           before_holds_still(p, bytes);
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

/* Blocks for the hand; one of them, or one of a larger class at the limit, or NULL. */
static NOINLINE block *refill(keeper *k, heap *h, unsigned klass)
{
    bin *b = &h->bins[klass];
    block *dealt[HAND_BLOCKS], *p = NULL;
    if (k) {
        keeper_restamp(k);
        keeper_collect_late(k, h);
        p = keeper_take(k, h, klass); /* a signal handler's */
    }
    if (!p)
        p = alloc_fill(h, b);
    alloc_housekeep(h);
    if (!k || !p || k->shelves[klass].held > 0 || slab_of(p)->klass != klass)
        return p;
    dealt[0] = p;
    keeper_deal(k, h, klass, dealt, 1 + heap_deal(h, b, &dealt[1], keeper_deals(&pm_classes[klass]) - 1));
    return keeper_take(k, h, klass);
}

/* The block given back last is where a stale pointer is most likely to write, and its beginning most of all. */
INLINE void last_check(const keeper *k, const void *caller)
{
    const uint64_t *p = k->last;
    if (UNLIKELY((p[0] | p[1]) != 0))
        stop_at((const char *)p, CALL_MALLOC, WRITTEN, caller);
}

/* A new block of a new slab is zero. */
static NOINLINE bool large_is_zero(const char *p, const size_class *c, uint64_t *tail)
{
    *tail = LOAD(block_tail(p, c));
    return (*tail == 0 && slab_of(p)->state == SLAB_ZEROED) || is_zero(p, block_tail(p, c));
}

static COLD void __attribute__((noreturn)) stop_taken(const char *p, const size_class *c, const void *caller)
{
    stop_at(p, CALL_MALLOC, tail_is_live(*block_tail(p, c) ^ key_of(p)) ? "handed out twice" : WRITTEN, caller);
}

/* A block of `bytes`, whose tail was `tail`, is as it was left, and becomes the program's. */
INLINE void *dress(char *p, size_t bytes, size_t size, made how, uint64_t key)
{
    uint64_t *at = (uint64_t *)(void *)(p + bytes) - 1;
    tail_busy(at, key);
    canary_put(p + size, at, key);
    __atomic_store_n(at, tail_live(size, how) ^ key, __ATOMIC_RELEASE);
    return p;
}

INLINE bool tail_may_go(uint64_t tail, uint64_t key) { return tail == 0 || tail_is_freed(tail ^ key); }

/* On the long way, or of a large class. */
static NOINLINE void *dress_checked(char *p, const size_class *c, size_t size, made how, const void *caller)
{
    uint64_t key = key_of(p), tail;
    if (UNLIKELY(!large_is_zero(p, c, &tail) || !tail_may_go(tail, key)))
        stop_taken(p, c, caller);
    return dress(p, c->size, size, how, key);
}

static block *take_more(heap *h, unsigned klass)
{
    if (UNLIKELY(alloc_is_short(h, klass) || !heap_enter(h)))
        return NULL;
    block *p = refill(keeper_of(h), h, klass);
    heap_leave(h);
    return p;
}

static NOINLINE block *take_slow(unsigned klass)
{
    heap *h = thread_heap();
    if (!h)
        return alloc_orphan(klass);
    block *p = take_more(h, klass);
    if (UNLIKELY(!p && h->keeper && keeper_enter(h))) {
        p = keeper_take_early(h->keeper, h, klass);
        keeper_leave(h);
    }
    return p;
}

/* A block at hand, or NULL. */
INLINE char *take(unsigned klass, const void *caller)
{
    heap *h = my_heap;
    keeper *k = h->keeper;
    block *p = NULL;
    if (LIKELY(k && keeper_enter(h))) {
        last_check(k, caller);
        p = keeper_take(k, h, klass);
        keeper_leave(h);
    }
    return (char *)p;
}

static size_t short_most; /* bytes that hardened_take looks at hand for; 0 before hardened_init, and with GUARD */

/* Calls nothing but in its last step, so that gcc saves few registers. */
void *hardened_take(size_t size, made how, const void *caller, hardened_rest *rest)
{
    heap *h = my_heap;
    keeper *k = h->keeper;
    if (UNLIKELY(size - 1 >= short_most || (READ(&pm_watching) | READ(&pm_asked)) || !k || !keeper_enter(h)))
        return rest(size, how, caller);
    size_t offset = READ(&READ(&pm_sizes)[(size + CANARY_LEAST + QUANTUM - 1) / QUANTUM]);
    shelf *s = shelf_by(k, offset);
    last_check(k, caller);
    char *p = (char *)shelf_take(k, s, (bin *)(void *)((char *)h + offset));
    keeper_leave(h);
    if (UNLIKELY(!p))
        return rest(size, how, caller);
    if (UNLIKELY(s->bytes > SHORT_BYTES))
        return dress_checked(p, &pm_classes[offset / BIN_SIZE], size, how, caller);
    const uint64_t *tail = (const uint64_t *)(const void *)(p + s->bytes) - 1;
    uint64_t key = key_of(p);
    if (UNLIKELY(!is_zero(p, tail) || !tail_may_go(*tail, key)))
        stop_taken(p, &pm_classes[offset / BIN_SIZE], caller);
    return dress(p, s->bytes, size, how, key);
}

INLINE unsigned class_for(size_t size, size_t align)
{
    if (size > BLOCK_MAX - CANARY_LEAST || align > ALIGN_POOLED)
        return CLASS_NONE;
    size = size_max(size, 1) + CANARY_LEAST;
    if (align <= QUANTUM)
        return class_of(size);
    classes_align();
    return class_aligned(size, align);
}

static bool inside(void) { return heap_is_real(my_heap) && my_heap->inside; }

void *hardened_alloc(size_t size, size_t align, made how, const void *caller)
{
    void *p = size == 0 && align <= QUANTUM ? nothing_take() : NULL;
    unsigned klass = class_for(size, align);
    if (p)
        return p;
    if (klass == CLASS_NONE || (UNLIKELY(pm_config.guard) && guard_due(1)))
        p = inside() ? NULL : guard_alloc(size, align, how, caller);
    if (p || klass == CLASS_NONE)
        return p;
    p = take(klass, caller);
    p = p ? p : take_slow(klass);
    if (UNLIKELY((uintptr_t)p & (align - 1))) { /* at the limit, a block of a larger class: as it came */
        keeper_pass(p);
        return NULL;
    }
    return p ? dress_checked(p, &pm_classes[slab_of(p)->klass], size, how, caller) : NULL;
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

/* Where a pointer leads. */
typedef struct place {
    const size_class *size;
    unsigned klass;
    bool first; /* of its slab: before it lies a guard */
} place;

/* True: malloc's block that begins at p, which is in the region. Malloc's slabs have neither heads nor colours here. */
INLINE bool place_is(place *at, const char *p)
{
    const slab *s = slab_of(p);
    at->klass = READ(&s->klass);
    const size_class *size = at->size = &pm_classes[at->klass];
    size_t offset = (region_offset(p) & (SLAB_SIZE - 1)) - SLAB_GUARD, number = offset * size->inverse >> 32;
    at->first = offset == 0;
    return heap_is_real(READ(&s->home)) && number < size->per_slab && number * size->size == offset;
}

/* All else is told. False: a guest's. */
static bool place_find(place *at, const char *p, call c, const void *caller)
{
    if (UNLIKELY(!place_is(at, p) && LOAD(&slab_of(p)->home) != HEAP_POOL))
        stop_nowhere(p, c, caller);
    return LOAD(&slab_of(p)->home) != HEAP_POOL;
}

static COLD void __attribute__((noreturn)) stop_block(const char *p, const size_class *size, call c, const void *caller)
{
    uint64_t tail = *block_tail(p, size);
    if (tail_state(tail ^ key_of(p)) == BLOCK_FREED && !is_zero(p, block_tail(p, size))) /* a tail whose first bytes were written over */
        stop((misuse){.block = p, .bytes = size->size}, p, c, "written past its end, or double free", caller);
    if (tail_state(tail ^ key_of(p)) == BLOCK_FREED)
        stop(describe(p, size, tail), p, c, c <= CALL_DELETE_ARRAY ? "double free" : "freed before", caller);
    stop(describe(p, size, tail), p, c, tail == 0 ? "no block was handed out there" : PAST, caller);
}

/* What the tail of a block in use says; a block that is not, or was written over, is told. */
INLINE uint64_t live_checked(const char *p, place at, uint64_t key, call c, const void *caller)
{
    const uint64_t *tail = block_tail(p, at.size);
    uint64_t shown = *tail ^ key;
    if (UNLIKELY(!tail_is_live(shown) || !canary_holds(p + tail_size(shown), tail, key)))
        stop_block(p, at.size, c, caller);
    if (UNLIKELY(!at.first && !before_holds(p, at.size->size)))
        stop_at(p, c, BEFORE, caller);
    return shown;
}

/* On the long way, or of a large class. A thread that has no keeper makes one; where a signal handler has come in between, it is for
 * later. */
static NOINLINE void give(char *p, unsigned klass, size_t asked)
{
    heap *h = thread_heap();
    keeper *k = h ? keeper_of(h) : NULL;
    block *freed = (block *)(void *)p;
    uint64_t *at = block_tail(p, &pm_classes[klass]), key = key_of(p);
    bool entered = k && keeper_enter(h);
    tail_busy(at, key);
    memset(p, 0, size_min(asked + CANARY_MOST, (size_t)((char *)at - p)));
    __atomic_store_n(at, (k ? k->stamp : keeper_stamp((uint32_t)os_now_ms(), os_thread())) ^ key, __ATOMIC_RELEASE);
    if (UNLIKELY(!entered)) {
        k ? keeper_late(k, freed) : keeper_pass(freed);
        return;
    }
    k->last = (const uint64_t *)(const void *)p;
    bool send = keeper_quarantine(k, h, freed, klass);
    keeper_leave(h);
    if (UNLIKELY(send))
        keeper_send(k, h);
}

static NOINLINE void give_overflow(keeper *k, heap *h, block *p, unsigned klass)
{
    bool send = keeper_overflow(k, h, p, klass);
    keeper_leave(h);
    if (send)
        keeper_send(k, h);
}

static COLD void __attribute__((noreturn)) stop_giving(const char *p, giving g, size_t said, const void *caller)
{
    const size_class *size = &pm_classes[slab_of(p)->klass];
    misuse m = describe(p, size, *block_tail(p, size));
    misuse_of_giving(&m, g, m.made, m.asked, said);
    stop(m, p, giving_call(g), m.what, caller);
}

/* None of the region's blocks. */
static NOINLINE void free_elsewhere(void *p, giving g, size_t said, const void *caller, hardened_foreign *foreign)
{
    if (p && nothing_holds(p))
        nothing_check(p, giving_call(g), true, caller);
    else if (!LOAD(&pm_guarding) || !guard_free(p, g, said, caller))
        foreign(p);
}

/* Step by step, with a report. */
static NOINLINE void free_checked(void *p, giving g, size_t said, const void *caller)
{
    call c = giving_call(g);
    place at;
    if (UNLIKELY(!place_find(&at, p, c, caller))) {
        free_other(p, slab_of(p));
        return;
    }
    uint64_t shown = live_checked(p, at, key_of(p), c, caller);
    if (UNLIKELY(!giving_fits(g, tail_made(shown)) || (said != SIZE_MAX && said != tail_size(shown))))
        stop_giving(p, g, said, caller);
    if (UNLIKELY(calls_watched()))
        watch_free(p, tail_size(shown));
    give(p, at.klass, tail_size(shown));
}

/* Nothing is wrong with the block, and nobody watches. */
INLINE bool is_good(const char *p, size_t bytes, bool first, const uint64_t *tail, uint64_t key, giving g, size_t said)
{
    uint64_t shown = *tail ^ key;
    return LIKELY(tail_fits(shown, g)) && (said == SIZE_MAX || said == tail_size(shown)) &&
           LIKELY(canary_holds(p + tail_size(shown), tail, key)) && !(READ(&pm_watching) | READ(&pm_asked)) &&
           (first || LIKELY(before_is_good(p, bytes, __atomic_load_n((const uint64_t *)(const void *)p - 1, __ATOMIC_ACQUIRE))));
}

/* The frequent way of give. The heap is entered. */
INLINE void give_here(keeper *k, heap *h, shelf *s, char *p, uint64_t *tail, unsigned klass, uint64_t key)
{
    tail_busy(tail, key);
    zero_all(p, tail);
    __atomic_store_n(tail, k->stamp ^ key, __ATOMIC_RELEASE);
    k->last = (const uint64_t *)(const void *)p;
    if (UNLIKELY(!shelf_has_room(k, s))) {
        give_overflow(k, h, (block *)(void *)p, klass);
        return;
    }
    quarantine_push(s, &h->bins[klass], (block *)(void *)p);
    keeper_leave(h);
}

/* Calls nothing but in its last step, as hardened_take. Whether a block begins at p its tail tells, as long as that lies in the slab. */
INLINE void free_here(void *p, giving g, size_t said, const void *caller, hardened_foreign *foreign)
{
    size_t offset = region_offset(p), in = offset % SLAB_SIZE - SLAB_GUARD;
    if (UNLIKELY(!region_holds(p))) {
        free_elsewhere(p, g, said, caller, foreign);
        return;
    }
    heap *h = my_heap;
    keeper *k = h->keeper;
    unsigned klass = READ(&slab_of(p)->klass);
    shelf *s = shelf_of(k, klass);
    if (UNLIKELY(!k || in > s->room)) {
        free_checked(p, g, said, caller);
        return;
    }
    uint64_t key = key_of(p), *tail = (uint64_t *)(void *)((char *)p + s->bytes) - 1;
    if (UNLIKELY(!is_good(p, s->bytes, in == 0, tail, key, g, said)))
        free_checked(p, g, said, caller);
    else if (UNLIKELY(s->bytes > SHORT_BYTES || !keeper_enter(h)))
        give(p, klass, tail_size(*tail ^ key));
    else
        give_here(k, h, s, p, tail, klass, key);
}

void hardened_free(void *p, const void *caller, hardened_foreign *foreign)
{
    free_here(p, giving_by(CALL_FREE), SIZE_MAX, caller, foreign);
}
void hardened_give(void *p, giving g, size_t said, const void *caller, hardened_foreign *foreign)
{
    free_here(p, g, said, caller, foreign);
}

size_t hardened_size(const void *p, call c, const void *caller)
{
    place at;
    if (UNLIKELY(!region_holds(p))) {
        if (!nothing_holds(p))
            return LOAD(&pm_guarding) ? guard_size(p, c, caller) : SIZE_MAX;
        nothing_check(p, c, false, caller);
        return 0;
    }
    if (UNLIKELY(!place_find(&at, p, c, caller)))
        return block_size_of(p);
    uint64_t key = key_of(p), shown = *block_tail(p, at.size) ^ key;
    return tail_size(LIKELY(tail_is_live(shown)) ? shown /* what lies around it is looked at when it is given back */
                                                  : live_checked(p, at, key, c, caller));
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
    const uint64_t *last = (const uint64_t *)(const void *)end - 1;
    for (int tries = 0; tries < TRIES; tries++)
        if ((*last == 0 && is_zero(p, last)) || !is_empty(s))
            return;
    while (p < end - 16 && pair_is_zero(*(const pair *)(const void *)p))
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

#define BETWEEN "used between slabs: before a block's beginning, or past another one's end"

/* What is closed beside large blocks. */
static bool fault_told(const void *at, misuse *m)
{
    bool guard = region_holds(at) ? (region_offset(at) & (SLAB_SIZE - 1)) < SLAB_GUARD : region_guards(at);
    m->what = !guard ? "a block of no bytes was used" : region_holds(at) ? BETWEEN : "used at the end of the pools' memory, or of their records";
    if (nothing_holds(at))
        m->block = (const char *)at - (uintptr_t)at % QUANTUM;
    m->own_pages = true;
    return guard || m->block;
}

void hardened_init(void)
{
    if (!pm_config.disable)
        guard_watch(fault_told);
    short_most = pm_config.guard ? 0 : BLOCK_MAX - CANARY_LEAST;
    secret = os_secret();
    secret_odd = os_secret() | 1;
    nothing = os_reserve(NOTHINGS * QUANTUM);
}
