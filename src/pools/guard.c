/* guard.c: see guard.h. */
#include "pools/guard.h"

#include "ground/config.h"
#include "ground/os.h"
#include "ground/text.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#define FRAMES 8
#define NONE 0u /* of the numbers of records, which count from 1 */

typedef enum { RECORD_FREE, RECORD_LIVE, RECORD_CLOSED } record_state;

/* The mapping, and what is in it. Written under the lock; a report reads without it. */
typedef struct record {
    char *begin;      /* the mapping, guards included */
    size_t bytes;
    char *block;
    size_t size;      /* asked for */
    size_t slack;     /* bytes behind the block */
    uint32_t low, high; /* in the tree: those before it and after it; of a free record: low is the next free one; numbers */
    uint8_t state, made;
    bool dirty;       /* its pages may hold what they held before */
    bool moved;       /* by realloc, from here or to here: several mappings, not to be used again in part */
    uint32_t made_in, freed_in; /* threads */
    uint32_t freed_at;          /* ms */
    uintptr_t made_from[FRAMES], freed_from[FRAMES]; /* ends with 0; of samples all, else the first */
} record;

#define SAMPLES 8192 /* records beyond which nothing is sampled any more */
#define ALIGN_MOST (1 * GIB)
#define POPULATED_MOST (64 * KIB) /* most of such a block is used soon: one call is a third of its page faults */
#define KEPT_DENSE (32 * MIB)  /* what closed blocks up to this size hold stays for the next ones, where much of it was touched: writing zeros costs
                                  less than page faults */
#define LOOKED_AT (256 * KIB)  /* the whole of those up to this size, the middle quarter of that of others */
#define MOVED_LEAST (256 * KIB + 1) /* realloc copies less than that */
#define KEPT_BYTES (4 * MIB)   /* of it in all, and as much again as is in use */
#define FRESHLY_CLOSED 16      /* of those closed last none is used again */
#define RECORDS_STEP (64 * KIB)

/* Guarded by lock. The records are a reservation of their own, with pages nobody may touch at both ends. */
static os_lock lock;
static record *records; /* [0] is number 1 */
static uint32_t root;   /* of a treap of those not free: in order of begin, and none above one of a greater weight */
static size_t committed;  /* bytes of records that can be used */
static uint32_t used;     /* records that ever were */
static uint32_t unused;   /* the first free record of those */
static uint32_t closed[GUARD_CLOSED] RARE; /* a ring: records of closed blocks, oldest first */
static size_t closed_first, closed_count, closed_bytes, closed_most;
static size_t live_bytes, dirty_bytes; /* mappings in use; closed ones whose pages are still there */
static size_t dirty_first;             /* in the ring: those before it have none */
static uint64_t secret;
static bool refused;                   /* a move: there are no more */
bool pm_guarding;

/* ---- records ---- */

static size_t page_up(size_t bytes) { return round_up(bytes, os_page_size()); }

/* Lock. */
static bool records_begin(void)
{
    size_t page = os_page_size();
    char *at = records ? NULL : os_reserve(page_up(GUARD_RECORDS * sizeof(record)) + 2 * page);
    if (at)
        records = (record *)(void *)(at + page);
    return records != NULL;
}

static record *record_at(uint32_t n) { return &records[n - 1]; }
static uint32_t weight(uint32_t n) { return n * 0x9E3779B1u ^ (uint32_t)secret; }

/* A number, or NONE. Lock. */
static uint32_t record_new(void)
{
    if (!records_begin())
        return NONE;
    if (unused) {
        uint32_t n = unused;
        unused = record_at(n)->low;
        return n;
    }
    if ((used + 1) * sizeof(record) > committed) {
        if (used >= GUARD_RECORDS || !os_commit((char *)records + committed, RECORDS_STEP))
            return NONE;
        committed += RECORDS_STEP;
    }
    return ++used;
}

/* Where the first lighter one was, whose subtree is split. O(log records), as all that follows. Lock. */
static void record_put(uint32_t n, const record *filled)
{
    record *r = record_at(n);
    uint32_t *link = &root, *low = &r->low, *high = &r->high;
    *r = *filled;
    while (*link != NONE && weight(*link) > weight(n))
        link = r->begin < record_at(*link)->begin ? &record_at(*link)->low : &record_at(*link)->high;
    uint32_t rest = *link;
    *link = n;
    while (rest != NONE) {
        bool before = record_at(rest)->begin < r->begin;
        uint32_t **end = before ? &low : &high;
        **end = rest;
        *end = before ? &record_at(rest)->high : &record_at(rest)->low;
        rest = **end;
    }
    *low = *high = NONE;
    live_bytes += r->bytes;
}

/* One that was not put. Lock. */
static void record_drop(uint32_t n)
{
    *record_at(n) = (record){.low = unused};
    unused = n;
}

static void record_end(uint32_t n)
{
    const record *r = record_at(n);
    uint32_t *link = &root, low = r->low, high = r->high;
    while (*link != n)
        link = r->begin < record_at(*link)->begin ? &record_at(*link)->low : &record_at(*link)->high;
    while (low != NONE && high != NONE) {
        bool first = weight(low) > weight(high);
        *link = first ? low : high;
        link = first ? &record_at(low)->high : &record_at(high)->low;
        *(first ? &low : &high) = *link;
    }
    *link = low != NONE ? low : high;
    record_drop(n);
}

/* The one whose mapping p lies in. Lock. */
static record *record_around(const char *p)
{
    for (uint32_t n = root; n != NONE;) {
        record *r = record_at(n);
        if (p >= r->begin && p < r->begin + r->bytes)
            return r;
        n = p < r->begin ? r->low : r->high;
    }
    return NULL;
}

/* The same without the lock: O(records), for reports and for signal handlers that come while their thread is inside. */
static record *record_seen(const void *p)
{
    for (record *r = records; r < records + used; r++)
        if (r->state != RECORD_FREE && (size_t)((const char *)p - r->begin) < r->bytes)
            return r;
    return NULL;
}

/* A signal handler that comes here while its thread is inside may not wait for the lock. */
static bool enter(heap **h)
{
    if (heap_is_real(my_heap) && my_heap->inside)
        return false;
    *h = heap_enter_mine();
    os_lock_take(&lock);
    return true;
}

static void leave(heap *h)
{
    os_lock_give(&lock);
    heap_leave_mine(h);
}

/* ---- canaries ---- */

#define BEFORE_MOST 64 /* bytes before a block that are looked at */

static char *data_begin(const record *r) { return (char *)((uintptr_t)r->block & ~(os_page_size() - 1)); }
static char *data_end(const record *r) { return r->block + r->size + r->slack; }
static size_t data_bytes(const record *r) { return (size_t)(data_end(r) - data_begin(r)); }

static char canary_at(const char *p) { return (char)((secret ^ (uintptr_t)p * 0x9E3779B97F4A7C15u) >> 32 | 0x80); }
static char *before_begin(const record *r) { return r->block - size_min((size_t)(r->block - data_begin(r)), BEFORE_MOST); }

static void canary_put(char *p, const char *end)
{
    for (; p < end; p++)
        *p = canary_at(p);
}

static bool canary_holds(const char *p, const char *end)
{
    while (p < end && *p == canary_at(p))
        p++;
    return p == end;
}

static void canaries_put(const record *r)
{
    canary_put(before_begin(r), r->block);
    canary_put(r->block + r->size, data_end(r));
}

/* NULL, or what is wrong. */
static const char *canaries_wrong(const record *r)
{
    if (!canary_holds(before_begin(r), r->block))
        return "written before its beginning";
    return canary_holds(r->block + r->size, data_end(r)) ? NULL : "written past its end";
}

/* ---- reports ---- */

static uint32_t now(void) { return (uint32_t)os_now_ms(); }

static misuse describe(const record *r, const void *p, call c, const char *what, const void *caller)
{
    misuse m = {.call = c, .pointer = p, .what = what, .caller = caller};
    if (r) {
        m.block = r->block;
        m.bytes = r->size;
        m.asked = r->size;
        m.own_pages = true;
        m.state = r->state == RECORD_LIVE ? BLOCK_LIVE : BLOCK_FREED;
        m.made = r->made;
        m.freed_by = r->freed_in;
        m.freed_ago = now() - r->freed_at;
    }
    return m;
}

static void add_frames(const char *what, uint32_t thread, const uintptr_t *from)
{
    text t = {.fd = pm_stderr};
    if (!*from || pm_stderr < 0)
        return;
    text_add(&t, "poolmalloc: %s by thread %u from", what, thread);
    for (size_t i = 0; i < FRAMES && from[i]; i++)
        text_add(&t, " 0x%zx", (size_t)from[i]);
    text_add(&t, "\n");
    text_flush(&t);
}

static COLD void tell(const record *r, const misuse *m)
{
    misuse_tell(m);
    if (!pm_config.guard)
        return;
    add_frames("made", r->made_in, r->made_from);
    add_frames("given back", r->freed_in, r->freed_from);
}

static COLD void __attribute__((noreturn)) stop(const record *r, const misuse *m)
{
    tell(r, m);
    os_abort();
}

static COLD void __attribute__((noreturn)) wrong(const record *r, const void *p, call c, const char *what, const void *caller)
{
    misuse m = describe(r, p, c, what, caller);
    stop(r, &m);
}

/* ---- mappings ---- */

static uint32_t *closed_at(size_t i) { return &closed[i % GUARD_CLOSED]; }

static void closed_forget(size_t i, const record *r)
{
    closed_bytes -= r->bytes;
    if (i >= dirty_first && r->dirty)
        dirty_bytes -= r->bytes;
}

/* The ring's entry i, which no longer counts. */
static void closed_remove(size_t i)
{
    dirty_first += i >= dirty_first;
    for (; i > closed_first; i--)
        *closed_at(i) = *closed_at(i - 1);
    closed_first++;
    closed_count--;
    dirty_first = size_max(dirty_first, closed_first);
}

/* A closed block's mapping of r->bytes, or some more, for r: the oldest one whose pages are still there, else the oldest one. Lock. */
static bool closed_find(record *r)
{
    size_t may = closed_count > FRESHLY_CLOSED ? closed_count - FRESHLY_CLOSED : 0, clean = dirty_first - closed_first;
    for (size_t k = 0; k < may; k++) {
        size_t i = closed_first + (clean + k) % may;
        uint32_t n = *closed_at(i);
        const record *old = record_at(n);
        if (old->bytes < r->bytes || old->bytes - r->bytes > r->bytes / 4)
            continue;
        r->begin = old->begin;
        r->bytes = old->bytes;
        r->dirty = old->dirty;
        closed_forget(i, old);
        record_end(n);
        closed_remove(i);
        return true;
    }
    return false;
}

static bool closed_take(record *r)
{
    os_lock_take(&lock);
    bool found = PM_HARDENED && closed_find(r);
    os_lock_give(&lock);
    return found;
}

/* Where a block of this size goes, in a mapping of nothing but guards, a new one or one used before; NULL: there is none. */
static char *place(record *r, size_t size, size_t align, bool again)
{
    size_t page = os_page_size(), data = page_up(size_max(size, 1)), extra = align > page ? align : 0;
    if (align > ALIGN_MOST || size > PTRDIFF_MAX - 2 * page - 2 * extra)
        return NULL;
    r->bytes = data + extra + 2 * page;
    r->dirty = false;
    if (extra || !again || !closed_take(r))
        r->begin = os_reserve(r->bytes);
    if (!r->begin)
        return NULL;
    char *first = extra ? (char *)round_up((uintptr_t)r->begin + page, align) : r->begin + r->bytes - page - data;
    r->block = (char *)((uintptr_t)(first + data - size) & ~(size_max(align, QUANTUM) - 1));
    r->size = size;
    r->slack = (size_t)(first + data - size - r->block);
    return r->block;
}

static void frames_note(uintptr_t *to, const void *caller)
{
    if (pm_config.guard)
        os_callers(to, FRAMES, (uintptr_t)caller);
    else
        to[0] = (uintptr_t)caller;
}

/* From the ring, until it is within its bounds. What leaves is unmapped. Lock. */
static void closed_trim(size_t most)
{
    while (closed_count > most || (closed_count > 1 && closed_bytes > closed_most)) {
        uint32_t n = *closed_at(closed_first);
        record r = *record_at(n);
        closed_forget(closed_first, &r);
        closed_first++;
        closed_count--;
        dirty_first = size_max(dirty_first, closed_first);
        record_end(n);
        os_unmap(r.begin, r.bytes);
    }
}

/* The pages of the oldest go back. Lock. */
static void dirty_trim(void)
{
    for (; dirty_bytes > KEPT_BYTES + live_bytes && dirty_first < closed_first + closed_count; dirty_first++) {
        record *r = record_at(*closed_at(dirty_first));
        if (!r->dirty)
            continue;
        r->dirty = !os_purge(r->begin, r->bytes);
        dirty_bytes -= r->bytes;
    }
}

/* Much of it was touched: that pages are not in memory says that they were not, or that they are swapped out. */
static bool is_dense(const record *r)
{
    size_t bytes = data_bytes(r), looked = bytes <= LOOKED_AT ? bytes : LOOKED_AT / 4;
    char *from = data_begin(r) + (bytes <= LOOKED_AT ? 0 : page_up(bytes / 2));
    return bytes <= KEPT_DENSE && os_resident(from, looked) > looked / 4;
}

/* Nobody may touch its pages, which stay where much of it was touched, and go back else. Pages that were written over with zeros all were. */
static void pages_close(record *r)
{
    r->dirty = PM_HARDENED && !r->moved && (r->dirty || is_dense(r));
    if (r->moved || !(r->dirty || os_purge(data_begin(r), data_bytes(r))) || !os_uncommit(data_begin(r), data_bytes(r))) {
        r->dirty = false;
        os_shut(r->begin, r->bytes); /* several mappings in one step, or locked ones; slower by half */
    }
}

/* The record is a closed block's. Lock. */
static void closed_push(record *r)
{
    pages_close(r);
    live_bytes -= r->bytes;
    closed_trim(GUARD_CLOSED - 1);
    *closed_at(closed_first + closed_count++) = (uint32_t)(r - records) + 1;
    closed_bytes += r->bytes;
    dirty_bytes += r->dirty ? r->bytes : 0;
    closed_trim(GUARD_CLOSED);
    dirty_trim();
}

static bool record_publish(const record *filled)
{
    os_lock_take(&lock);
    uint32_t n = record_new();
    if (n != NONE)
        record_put(n, filled);
    os_lock_give(&lock);
    return n != NONE;
}

/* A place whose pages may be used. */
static bool pages_open(record *r, size_t size, size_t align)
{
    if (!place(r, size, align, true))
        return false;
    if (os_commit(data_begin(r), data_bytes(r)))
        return true;
    os_unmap(r->begin, r->bytes);
    return false;
}

/* Memory is short: closed blocks end early, if they hold as much as is asked for. */
static bool closed_end(size_t size)
{
    os_lock_take(&lock);
    bool enough = size < closed_bytes;
    if (enough)
        closed_trim(0);
    os_lock_give(&lock);
    return enough;
}

bool guard_shed(void)
{
    os_lock_take(&lock);
    bool any = closed_count > 0;
    closed_trim(0);
    os_lock_give(&lock);
    return any;
}

static void *block_open(record *r, size_t size, size_t align, const void *caller)
{
    if (!pages_open(r, size, align) && (!closed_end(size) || !pages_open(r, size, align)))
        return NULL;
    if (r->dirty)
        memset(data_begin(r), 0, data_bytes(r));
    else if (data_bytes(r) <= POPULATED_MOST)
        os_populate(data_begin(r), data_bytes(r));
    frames_note(r->made_from, caller);
    canaries_put(r);
    STORE(&pm_guarding, true);
    if (record_publish(r))
        return r->block;
    os_unmap(r->begin, r->bytes);
    return NULL;
}

void *guard_alloc(size_t size, size_t align, made how, const void *caller)
{
    record r = {.state = RECORD_LIVE, .made = (uint8_t)how, .made_in = pm_config.guard ? heap_thread() : 0};
    heap *h = heap_enter_mine();
    void *p = h || !heap_is_real(my_heap) ? block_open(&r, size, align, caller) : NULL;
    heap_leave_mine(h);
    return p;
}

/* ---- back ---- */

/* The record of a live block that may be given back by c; NULL: p is none of these. Lock, which a report does not give back. */
static record *record_checked(const void *p, giving g, size_t size, const void *caller)
{
    call c = giving_call(g);
    record *r = record_around(p);
    if (!r)
        return NULL;
    if (r->block != p)
        wrong(r, p, c, "no block begins there", caller);
    if (r->state == RECORD_CLOSED)
        wrong(r, p, c, c <= CALL_DELETE_ARRAY ? "double free" : "freed before", caller);
    const char *what = canaries_wrong(r);
    if (what)
        wrong(r, p, c, what, caller);
    misuse m = describe(r, p, c, NULL, caller);
    if (PM_HARDENED && c != CALL_USABLE_SIZE && misuse_of_giving(&m, g, r->made, r->size, size))
        stop(r, &m);
    return r;
}

static void record_close(record *r, const void *caller)
{
    r->state = RECORD_CLOSED;
    r->freed_in = heap_thread();
    r->freed_at = now();
    frames_note(r->freed_from, caller);
}

bool guard_free(void *p, giving g, size_t size, const void *caller)
{
    heap *h;
    if (!enter(&h)) /* its pages stay: better than a deadlock */
        return record_seen(p) != NULL;
    record *r = record_checked(p, g, size, caller);
    if (r) {
        record_close(r, caller);
        closed_push(r);
    }
    leave(h);
    return r != NULL;
}

size_t guard_size(const void *p, call c, const void *caller)
{
    heap *h;
    if (!enter(&h)) {
        const record *found = record_seen(p);
        return found ? found->size : SIZE_MAX;
    }
    record *r = record_checked(p, c, SIZE_MAX, caller);
    size_t size = r ? r->size : SIZE_MAX;
    leave(h);
    return size;
}

/* The pages move, and what is in them by less than a page, where the two blocks do not lie the same way in theirs. */
static bool pages_move(const record *from, const record *to)
{
    char *data = data_begin(to);
    size_t was = (size_t)(from->block - data_begin(from)), is = (size_t)(to->block - data);
    size_t kept = size_min(from->size, to->size);
    if (was + kept > data_bytes(to))
        return false;
    if (!os_move(data_begin(from), size_min(data_bytes(from), data_bytes(to)), data, data_bytes(to))) {
        STORE(&refused, true);
        return false;
    }
    if (is != was)
        memmove(data + is, data + was, kept);
    return true;
}

/* The pages of the old one went to another place: their hole is closed before another thread's mapping may come there, or, where one
 * has, left to it. Lock. */
static void moved_close(record *old, size_t bytes, const void *caller)
{
    char *hole = data_begin(old), *end = old->begin + old->bytes;
    record_close(old, caller);
    if (os_shut_hole(hole, bytes)) {
        closed_push(old);
        return;
    }
    live_bytes -= old->bytes;
    os_unmap(old->begin, (size_t)(hole - old->begin));
    os_unmap(hole + bytes, (size_t)(end - hole) - bytes);
    record_end((uint32_t)(old - records) + 1);
}

/* Where a move is refused the place is left: kernels before 6.18 may have unmapped it first, and another thread mapped something there. */
void *guard_realloc(void *p, size_t size, const void *caller)
{
    heap *h;
    if (!LOAD(&pm_guarding) || size < MOVED_LEAST || LOAD(&refused) || !enter(&h))
        return NULL;
    record r = {.state = RECORD_LIVE, .made_in = heap_thread()}, *old = record_checked(p, giving_by(CALL_REALLOC), SIZE_MAX, caller);
    bool placed = old && old->size >= MOVED_LEAST && place(&r, size, QUANTUM, false);
    uint32_t n = placed ? record_new() : NONE;
    bool moved = n != NONE && pages_move(old, &r);
    if (moved) {
        frames_note(r.made_from, caller);
        canaries_put(&r);
        r.moved = old->moved = true;
        moved_close(old, size_min(data_bytes(old), data_bytes(&r)), caller);
        record_put(n, &r);
    } else if (n != NONE) {
        record_drop(n);
    }
    leave(h);
    if (placed && !moved && !LOAD(&refused))
        os_unmap(r.begin, r.bytes);
    return moved ? r.block : NULL;
}

void guard_check(call c)
{
    heap *h;
    if (!enter(&h))
        return;
    for (record *r = records; r < records + used; r++) {
        const char *what = r->state == RECORD_LIVE ? canaries_wrong(r) : NULL;
        if (what)
            wrong(r, r->block, c, what, NULL);
    }
    leave(h);
}

/* ---- faults ---- */

static struct sigaction before; /* the program's, or the default */

static const char *fault_text(const record *r, const char *at)
{
    if (r->state == RECORD_CLOSED)
        return "used after it was given back";
    return at < r->block ? "used before its beginning" : "used past its end";
}

static bool (*others)(const void *at, misuse *m);

/* Told, and then the access is made again, with the program's own handler in place; so is a signal that somebody sent. */
static void on_fault(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    if (info->si_code <= 0) {
        sigaction(number, &before, NULL);
        os_signal_again(number, info);
        errno = saved;
        return;
    }
    const void *at = info->si_addr, *from = (const void *)os_interrupted(context);
    const record *r = record_seen(at);
    misuse m = {.call = CALL_ACCESS, .pointer = at, .caller = from};
    if (r) {
        m = describe(r, at, CALL_ACCESS, fault_text(r, at), from);
        tell(r, &m);
    } else if (others && others(at, &m)) {
        misuse_tell(&m);
    }
    sigaction(number, &before, NULL);
    errno = saved;
}

/* The program may have set a handler of its own meanwhile: ours goes in front of it again. */
static void faults_watch(void)
{
    struct sigaction old, ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    if (sigaction(SIGSEGV, NULL, &old) == 0 && !((old.sa_flags & SA_SIGINFO) && old.sa_sigaction == on_fault)) {
        before = old;
        sigaction(SIGSEGV, &ours, NULL);
    }
}

void guard_watch(bool (*other)(const void *at, misuse *m))
{
    struct sigaction now;
    others = other;
    if (sigaction(SIGSEGV, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL)
        faults_watch();
}

/* ---- samples ---- */

static int64_t until; /* blocks before the next sample; atomic */

/* From 1 to twice the rate less one, so that no program is in step with it. */
static int64_t stride(void)
{
    static uint64_t state;
    uint64_t n = __atomic_add_fetch(&state, 0x9E3779B97F4A7C15u, __ATOMIC_RELAXED) ^ secret;
    n = (n ^ n >> 30) * 0xBF58476D1CE4E5B9u;
    return (int64_t)((n >> 20) % (2 * (uint64_t)pm_config.guard - 1)) + 1;
}

bool guard_due(size_t blocks)
{
    if (LIKELY(__atomic_sub_fetch(&until, (int64_t)blocks, __ATOMIC_RELAXED) > 0))
        return false;
    __atomic_store_n(&until, stride(), __ATOMIC_RELAXED);
    faults_watch();
    return LOAD(&used) < SAMPLES;
}

void guard_init(void)
{
    if (!PM_HARDENED && !pm_config.guard)
        return;
    secret = os_secret();
    closed_most = size_min(GUARD_CLOSED_BYTES, os_address_space() / 8);
    if (pm_config.guard)
        until = stride();
}
