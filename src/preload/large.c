/* large.c: See large.h. */
#include "preload/large.h"

#include "ground/config.h"
#include "ground/os.h"
#include "pools/threads.h"
#include "preload/huge.h"

#include <errno.h>

#define LIMIT_MOST 64            /* blocks of one bin */
#define ALLOWED_LEAST (2 * MIB)  /* of all bins; what threads leave behind */
#define ALLOWED_MOST (256 * MIB)
#define MAPPED_LEAST (128 * KIB) /* the C library's, to begin with */
#define MAPPED_MOST (32 * MIB)   /* the same, at most */
#define GIVEN_MOST 8             /* blocks given back at a look, and the rest of a bin */
#define ROOM_ANSWERS 32          /* to how much room there is, by one sum over all bins */

static bool keeping; /* constant after start */
static int64_t out;     /* bytes that the next allocator has given in blocks of these sizes and not got back; atomic, relaxed */
static int64_t allowed; /* bytes: limit * size of all bins of all heaps; atomic, relaxed */

static size_t size_untold(void *p)
{
    (void)p;
    return 0;
}

/* At hand, or gone back: then its end may not be there any more where the next allocator looks for it, which is to see for itself. */
static COLD size_t size_if_kept(kept_block *p)
{
    if (kept_says(p, KEPT_HERE))
        kept_freed(p);
    return kept_says(p, KEPT_GONE) ? 0 : pm_next.malloc_usable_size(p);
}

/* The program may have closed the pages that it wholly has: what begins with a page is given on as it is. */
static bool may_be_closed(const void *p) { return ((uintptr_t)p & 4095) == 0; }

static size_t size_told(void *given)
{
    kept_block *p = given;
    if (UNLIKELY(may_be_closed(p)))
        return 0;
    return UNLIKELY(kept_hints(p)) ? size_if_kept(p) : pm_next.malloc_usable_size(p);
}

size_t (*pm_large_size)(void *) = size_untold;

size_t large_round(size_t size)
{
    unsigned c = keeping && size > KEPT_LEAST ? large_class(size) : KEPT_BINS;
    return c < KEPT_BINS ? kept_size(c) : size;
}

static int64_t allow(int64_t bytes) { return __atomic_add_fetch(&allowed, bytes, __ATOMIC_RELAXED); }

static uint32_t room_sum(const kept_bins *k)
{
    uint32_t sum = 0;
    for (unsigned c = 0; c < KEPT_BINS; c += 8) {
        int32_t eighths = 0; /* of that doubling: see kept_size */
        for (unsigned i = 0; i < 8; i++)
            eighths += k->bin[c + i].room * (int32_t)(i + 9);
        sum += (uint32_t)eighths << c / 8;
    }
    return sum;
}

/* What would still go into the bins here, or would have a few questions ago. By the heap's thread, as those that ask. */
static int64_t room_bytes(kept_bins *k)
{
    if (k->asked++ % ROOM_ANSWERS == 0)
        k->spare = room_sum(k);
    return (int64_t)k->spare << KEPT_STEP;
}

/* What the program has, at least: as if all bins but those here were full. Less exact, and each heap would take for the program's what the
 * others have at hand, and allow more for it, and so would they. */
static int64_t live_bytes(kept_bins *here) { return LOAD(&out) - LOAD(&allowed) + room_bytes(here); }

/* Room is for what comes and goes: never more than three times what the program has. */
static int64_t allowed_most(kept_bins *here)
{
    int64_t most = 3 * live_bytes(here);
    most = most > (int64_t)ALLOWED_LEAST ? most : (int64_t)ALLOWED_LEAST;
    return most < (int64_t)ALLOWED_MOST ? most : (int64_t)ALLOWED_MOST;
}

/* Room for one block more, if there may be. */
static bool allow_block(kept_bins *here, unsigned c)
{
    int64_t size = (int64_t)kept_size(c);
    if (allow(size) <= allowed_most(here))
        return true;
    allow(-size);
    return false;
}

static bool out_add(size_t usable, int64_t sign)
{
    bool large = large_class_held(usable) < KEPT_BINS;
    if (large)
        __atomic_add_fetch(&out, sign * (int64_t)usable, __ATOMIC_RELAXED);
    return large;
}

void *large_got(void *given)
{
    kept_block *p = given;
    if (!p || !keeping || may_be_closed(p))
        return p;
    size_t usable = pm_next.malloc_usable_size(p);
    if (out_add(usable, 1) && kept_says(p, KEPT_GONE))
        p->mark = 0; /* where one begins that had gone back */
    huge_got(p, usable);
    return p;
}

void large_gone(size_t usable) { out_add(usable, -1); }

/* ---- what goes back ---- */

static size_t list_give(kept_block *p)
{
    size_t bytes = 0;
    large_away(1);
    for (kept_block *next; p; p = next) {
        size_t usable = pm_next.malloc_usable_size(p);
        next = p->next;
        large_gone(usable);
        pm_next.free(p);
        bytes += usable;
    }
    large_away(-1);
    return bytes;
}

/* The limit falls by what other threads took, who lowered `allowed` for it; or bin_lower did so too, between their two steps. */
static void bin_settle(kept_bin *b, unsigned c)
{
    unsigned taken = __atomic_exchange_n(&b->taken, 0, __ATOMIC_RELAXED), had = taken < b->limit ? taken : b->limit;
    b->limit = (uint8_t)(b->limit - had);
    b->room = (int16_t)(b->room < b->limit ? b->room : b->limit);
    allow((int64_t)((taken - had) * kept_size(c)));
}

static void bin_lower(kept_bin *b, unsigned c, unsigned blocks)
{
    blocks = blocks < b->limit ? blocks : b->limit;
    b->limit = (uint8_t)(b->limit - blocks);
    b->given = 0;
    allow(-(int64_t)(blocks * kept_size(c)));
}

/* What was not needed since the last look goes, and half of the room where nothing went by; what came in since is what the next look
 * is about. By the heap's thread, as the next one. */
static unsigned bin_look(kept_bin *b, unsigned c, kept_block **to)
{
    bin_settle(b, c);
    unsigned n = list_move(&b->old, to), unused = 0;
    list_put(&b->old, list_take(&b->fresh));
    if (!LOAD(&b->old)) {
        b->room = (int16_t)(n ? b->room : b->limit); /* a fork or a handler may have lost some */
        unused = b->given ? 0 : (unsigned)(b->room + 1) / 2;
    }
    b->room = (int16_t)(b->room - (int)unused);
    bin_lower(b, c, n + unused);
    return n;
}

/* All of it goes. After a fork there may be less than was counted. */
static void bin_empty(kept_bin *b, unsigned c, kept_block **to)
{
    list_move(&b->old, to);
    list_move(&b->fresh, to);
    bin_settle(b, c);
    b->room = 0;
    bin_lower(b, c, b->limit);
}

/* By any thread: the heap's own may be using it meanwhile. */
static unsigned bin_rob(kept_bin *b, unsigned c, kept_block **to)
{
    unsigned n = list_move(&b->old, to) + list_move(&b->fresh, to);
    if (n > 0) {
        __atomic_add_fetch(&b->taken, (uint16_t)n, __ATOMIC_RELAXED);
        allow(-(int64_t)(n * kept_size(c)));
    }
    return n;
}

static void shared_lower(unsigned c, uint32_t blocks) { allow(-(int64_t)(blocks * kept_size(c))); }

static size_t shared_give(void)
{
    kept_block *all = NULL;
    for (unsigned c = 0; c < KEPT_BINS; c++)
        shared_lower(c, shared_empty(c, &all));
    return list_give(all);
}

/* More is allowed than three times what the program has: it has come down. */
static bool come_down(kept_bins *here)
{
    int64_t now = LOAD(&allowed);
    return now > (int64_t)ALLOWED_LEAST && now > allowed_most(here);
}

/* What one thread had at hand is for all, as long as there is room. */
static void bin_share(unsigned c, kept_block *p, int64_t *room)
{
    kept_block *back = NULL;
    int64_t size = (int64_t)kept_size(c);
    for (kept_block *next; p; p = next) {
        next = p->next;
        if (size <= *room) {
            *room -= size;
            allow(size);
            shared_admit(c, p);
        } else {
            p->next = back;
            back = p;
        }
    }
    list_give(back);
}

static void idle(heap *h)
{
    int64_t room = (int64_t)ALLOWED_LEAST - shared_bytes();
    h->kept.away = 0; /* a handler may have jumped out of there */
    if (h->kept.asked == 0 && LOAD(&allowed) <= 0) /* nothing is at hand, nor was here */
        return;
    for (unsigned c = 0; c < KEPT_BINS; c++) {
        kept_block *all = NULL;
        bin_empty(&h->kept.bin[c], c, &all);
        bin_share(c, all, &room);
    }
    h->kept.asked = 0;
    if (come_down(&h->kept) || LOAD(&out) <= shared_bytes())
        shared_give();
}

static size_t trim(void)
{
    kept_block *all = NULL;
    size_t bytes = shared_give();
    for (uint32_t i = 0, n = LOAD(&pm_registry.count); i < n; i++)
        for (unsigned c = 0; c < KEPT_BINS; c++)
            bin_rob(&registry_heap(i)->kept.bin[c], c, &all);
    return bytes + list_give(all);
}

bool large_shed(void) { return LOAD(&allowed) > 0 && !large_is_away() && trim() > 0; }

/* ---- now and then ---- */

/* From where the last look ended, until enough has come together. */
static void look_here(kept_bins *k, uint64_t now)
{
    kept_block *old = NULL;
    if (k->at == 0) {
        if (now - k->looked < pm_config.purge_delay)
            return;
        STORE(&k->looked, now);
    }
    for (unsigned n = 0; k->at < KEPT_BINS && n < GIVEN_MOST; k->at++)
        n += bin_look(&k->bin[k->at], k->at, &old);
    k->at %= KEPT_BINS;
    k->asked = 0;
    if (old)
        PROBE(large_old, k, old);
    list_give(old);
}

/* Each bin by one thread. */
static void look_shared(uint64_t now)
{
    kept_block *old = NULL;
    if (LOAD(&pm_shared.at) >= KEPT_BINS) {
        if (now - LOAD(&pm_shared.looked) < pm_config.purge_delay)
            return;
        STORE(&pm_shared.looked, now);
        STORE(&pm_shared.at, 0);
    }
    for (uint32_t c, n = 0; n < GIVEN_MOST && (c = __atomic_fetch_add(&pm_shared.at, 1, __ATOMIC_RELAXED)) < KEPT_BINS;) {
        uint32_t lower = shared_look(c, &old);
        shared_lower(c, lower);
        n += lower;
    }
    if (old)
        PROBE(large_old, &pm_shared, old);
    list_give(old);
}

/* Its thread counts `until` down in one instruction, which the compiler never makes of an atomic one. */
static PEEKS uint32_t last_seen(const kept_bins *k) { return (uint32_t)LOAD(&k->looked) << 8 | k->until; }

/* One heap after the other: where nothing large was asked for during the delay, it all goes. */
static void look_elsewhere(uint64_t now)
{
    static uint32_t cursor;
    heap *h = registry_heap(__atomic_fetch_add(&cursor, 1, __ATOMIC_RELAXED) % LOAD(&pm_registry.count));
    kept_bins *k = &h->kept;
    kept_block *old = NULL;
    uint32_t seen = last_seen(k);
    if (h == my_heap)
        return;
    if (LOAD(&k->seen) != seen) {
        STORE(&k->seen, seen);
        STORE(&k->seen_at, (uint32_t)now);
    } else if ((uint32_t)now - LOAD(&k->seen_at) >= pm_config.purge_delay) {
        for (unsigned c = 0, n = 0; c < KEPT_BINS && n < GIVEN_MOST; c++)
            n += bin_rob(&k->bin[c], c, &old);
        STORE(&k->seen_at, (uint32_t)now);
        if (old)
            PROBE(large_rob, h->number, old);
        list_give(old);
    }
}

static void tick(void)
{
    if (pm_config.purge_delay == DELAY_NEVER || large_is_away())
        return;
    int saved = errno;
    uint64_t now = os_now_ms();
    if (heap_is_real(my_heap))
        look_here(&my_heap->kept, now);
    look_shared(now);
    look_elsewhere(now);
    errno = saved;
}

NOINLINE void *large_tick(void *p)
{
    tick();
    return p;
}

/* ---- misses ---- */

/* Where the settings leave smaller blocks to the C library, too, threads do better with heaps of their own there. */
static void arenas_share(void)
{
    unsigned processors = os_processors();
    if (processors > 0 && class_of(KEPT_LEAST) != CLASS_NONE)
        next_arenas_most(processors);
}

/* The C library lets each mapped block that is freed, wanted again or not, raise the size from which it maps, and keeps twice that much at
 * the top of its heap for good. Here only those raise it that were wanted again; where nothing is kept, nobody would see which were.
 * One thread at a time: the larger one comes again with the next miss. */
static void map_from(size_t bytes)
{
    static size_t from;
    static uint32_t tuner; /* fork generation + 1 while a thread is at it */
    uint32_t other = LOAD(&tuner), mine = LOAD(&pm_registry.epoch) + 1;
    if (!keeping || bytes <= LOAD(&from) || pm_config.purge_delay == DELAY_NEVER || large_is_away() || other == mine ||
        !__atomic_compare_exchange_n(&tuner, &other, mine, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return;
    if (bytes > LOAD(&from)) {
        large_away(1);
        if (LOAD(&from) == 0)
            arenas_share();
        next_map_from(size_min(bytes, MAPPED_MOST));
        large_away(-1);
        STORE(&from, bytes);
    }
    __atomic_store_n(&tuner, 0, __ATOMIC_RELEASE);
}

/* A block that this thread gave away is wanted again. */
static void bin_learn(kept_bins *k, kept_bin *b, unsigned c)
{
    b->given--;
    if (b->limit >= LIMIT_MOST || !allow_block(k, c))
        return;
    b->limit++;
    b->room++;
    PROBE(large_keep, c, b->limit);
}

/* Nothing is at hand here: is it elsewhere, and who should have kept it? */
static kept_block *shared_more(kept_bins *k, kept_bin *b, unsigned c)
{
    kept_block *p = shared_take(c);
    bool mine = b->given > 0, again = mine || (!p && shared_regret(c));
    if (!p)
        map_from(again ? kept_size(c + 1) : MAPPED_LEAST);
    if (mine) {
        bin_learn(k, b, c);
    } else if (again && allow_block(k, c)) {
        shared_raise(c);
        PROBE(large_share, c, LOAD(&pm_shared.bin[c].limit));
    }
    return p;
}

/* What large_take did not look at, or found taken away. */
void *large_more(size_t size)
{
    unsigned c = size > KEPT_LEAST ? large_class(size) : KEPT_BINS;
    heap *h = my_heap;
    if (c >= LOAD(&pm_kept_bins) || !heap_is_real(h))
        return NULL;
    kept_bin *b = &h->kept.bin[c];
    for (kept_bin *from = b; from < b + 2; from++)
        if (LOAD(&from->old) && !LOAD(&from->fresh)) {
            list_put(&from->fresh, list_take(&from->old));
            kept_block *p = kept_bin_take(from);
            list_put(&from->old, list_take(&from->fresh));
            return !p || kept_hand_out(p) ? p : kept_wrong(p);
        }
    return shared_more(&h->kept, b, c);
}

static void bins_fall(kept_bins *k, unsigned c)
{
    kept_block *all = NULL;
    bin_empty(&k->bin[c], c, &all);
    k->asked = 0;
    shared_lower(c, shared_empty(c, &all));
    if (all)
        PROBE(large_fall, c, all);
    list_give(all);
}

/* Where no bin of this heap keeps it. */
static bool give_shared(kept_bins *k, unsigned c, kept_block *p)
{
    kept_bin *b = &k->bin[c];
    if ((b->limit > 0 || LOAD(&pm_shared.bin[c].limit) > 0) && come_down(k))
        bins_fall(k, c);
    b->given = (uint8_t)(b->given + (b->given < UINT8_MAX));
    if (shared_put(c, p))
        return true;
    shared_given(c);
    return false;
}

void large_give(void *given)
{
    kept_block *p = given;
    size_t usable = pm_large_size(p);
    unsigned c = large_class_held(usable);
    heap *h = c < LOAD(&pm_kept_bins) ? thread_heap() : NULL;
    if (h && give_shared(&h->kept, c, p))
        return;
    if (c < KEPT_BINS)
        kept_say(p, KEPT_GONE);
    large_gone(usable);
    huge_gone(p, usable);
    large_away(1);
    pm_next.free(p);
    large_away(-1);
}

void large_init(void)
{
    static const storer here = {tick, idle, trim, shared_forked};
    keeping = !PM_HARDENED && pm_pools_ready && !pm_every_call_slow && !pm_watching && !pm_config.guard && !pm_config.limit &&
              pm_config.purge_delay > 0 && pm_next.malloc_usable_size;
    if (!keeping)
        return;
    pm_large_size = size_told;
    pm_storer = &here;
}
