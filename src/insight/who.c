/* who.c: See who.h. Called on slow paths, of signal handlers too: every step is an atomic one, and what cannot be had at
 * once is left. */
#include "insight/who.h"

#include "pools/heap.h"
#include "pools/seams.h"

#include <string.h>

#define LOOKS 256          /* calls of a thread between two looks at the clock */
#define TOKENS_MOST 8192   /* samples in a row at the rate that was asked for */
#define TOKENS_A_MS 4      /* in the long run: a sample costs a microsecond or two */
#define SHIFT_MOST 16      /* the rate is doubled so often at most */

static os_lock lock;  /* begins and ends; tried only */
static bool ready;    /* set once, at start */

/* A thread's way to its next sample; pm_unwatched says how far that is. */
static __thread struct {
    uint64_t mean; /* of the step that it is on */
    uint64_t random;
    uint32_t began; /* which sampling it belongs to, by the low half of its number */
    uint32_t calls;
} step;

/* ---- begin and end ---- */

/* Small address spaces get fewer records. */
static who_table *table_map(void)
{
    for (size_t records = WHO_RECORDS; records >= WHO_RECORDS / 64; records /= 2) {
        size_t front = round_up(WHO_FRONT(records), WHO_RECORD);
        size_t bytes = front + records * WHO_RECORD;
        who_table *t = bytes < os_address_space() / 4 ? os_reserve(bytes) : NULL;
        if (t && os_commit(t, bytes)) {
            *t = (who_table){.magic = WHO_MAGIC, .layout = sizeof(who_sample), .records = (uint32_t)records, .bytes = bytes, .records_at = front};
            os_huge(t, bytes, false);
            return t;
        }
        if (t)
            os_unmap(t, bytes);
    }
    return NULL;
}

/* Nothing is sampled any more; its pages but the first go back. */
static void table_clear(who_table *t)
{
    STORE(&t->began, 0);
    os_purge((char *)t + 4 * KIB, t->bytes - 4 * KIB);
    memset(pm_sample_marks, 0, sizeof pm_sample_marks);
}

/* Lock. A thread that is changing a record keeps us from it; one that a fork has cut off does so no longer. */
static void table_begin(who_table *t)
{
    uint32_t pid = os_pid();
    if (LOAD(&t->writers) > 0 && t->pid == pid)
        return;
    table_clear(t);
    t->pid = pid;
    t->writers = t->pages = t->taken = t->missed = t->free = 0;
    t->used = 0;
    t->tokens = TOKENS_MOST;
    t->refilled = os_now_ms();
    __atomic_store_n(&t->began, t->refilled, __ATOMIC_RELEASE);
}

static COLD who_table *session_begin(void)
{
    if (!os_lock_try(&lock))
        return NULL;
    who_table *t = pm_samples;
    if (!t && (t = table_map()) != NULL)
        __atomic_store_n(&pm_samples, t, __ATOMIC_RELEASE); /* for good */
    if (t && !t->began)
        table_begin(t);
    os_lock_give(&lock);
    return t && t->began ? t : NULL;
}

INLINE who_table *session(void)
{
    who_table *t = __atomic_load_n(&pm_samples, __ATOMIC_ACQUIRE);
    return LIKELY(t && __atomic_load_n(&t->began, __ATOMIC_ACQUIRE)) ? t : NULL;
}

/* Nobody has renewed the wish in time: whoever had it is gone. */
static COLD void session_expire(uint64_t word)
{
    uint64_t end = who_word_end(word);
    if (end && os_now_ms() > end)
        __atomic_compare_exchange_n(&pm_asked, &word, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* ---- records ---- */

/* A list through the records, and those never used before behind it. The high half of its head changes each time, so that no
 * thread takes an old head for the present one. */
static who_sample *record_pop(who_table *t)
{
    uint64_t head = __atomic_load_n(&t->free, __ATOMIC_ACQUIRE), to;
    do {
        uint32_t first = (uint32_t)head;
        if (first == 0) {
            uint32_t fresh = __atomic_fetch_add(&t->used, 1, __ATOMIC_RELAXED);
            if (fresh < t->records)
                return who_record(t, fresh);
            __atomic_sub_fetch(&t->used, 1, __ATOMIC_RELAXED);
            return NULL;
        }
        to = ((head >> 32) + 1) << 32 | LOAD(&who_record(t, first - 1)->next);
    } while (!__atomic_compare_exchange_n(&t->free, &head, to, true, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE));
    return who_record(t, (uint32_t)head - 1);
}

static void record_push(who_table *t, who_sample *s)
{
    uint64_t head = LOAD(&t->free), to;
    do {
        STORE(&s->next, (uint32_t)head);
        to = ((head >> 32) + 1) << 32 | (who_number(t, s) + 1);
    } while (!__atomic_compare_exchange_n(&t->free, &head, to, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

/* ---- places ---- */

INLINE uint64_t *line_of(const who_table *t, const void *p)
{
    return who_places(t) + (block_hash(p) & ((size_t)t->records * WHO_PLACES / WHO_LINE - 1)) * WHO_LINE;
}

static uint64_t *place_find(const who_table *t, const void *p)
{
    uint64_t *line = line_of(t, p);
    for (int i = 0; i < WHO_LINE; i++)
        if (LOAD(&line[i]) == (uintptr_t)p)
            return &line[i];
    return NULL;
}

static uint64_t *place_claim(const who_table *t, const void *p)
{
    uint64_t *line = line_of(t, p);
    for (int i = 0; i < WHO_LINE; i++) {
        uint64_t none = 0;
        if (LOAD(&line[i]) == 0 && __atomic_compare_exchange_n(&line[i], &none, WHO_BUSY, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return &line[i];
    }
    return NULL;
}

INLINE uint32_t *number_at(const who_table *t, const uint64_t *place) { return &who_numbers(t)[place - who_places(t)]; }

INLINE uint64_t sample_pages(const who_sample *s) { return (sizeof *s + s->stack_bytes + 4 * KIB - 1) / (4 * KIB); }

static NOINLINE void sample_drop(who_table *t, const void *p)
{
    uint64_t *place = place_find(t, p), address = (uintptr_t)p;
    __atomic_add_fetch(&t->writers, 1, __ATOMIC_ACQUIRE);
    uint32_t number = place ? *number_at(t, place) : t->records;
    if (number < t->records && __atomic_compare_exchange_n(place, &address, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
        __atomic_sub_fetch(&t->pages, sample_pages(who_record(t, number)), __ATOMIC_RELAXED);
        __atomic_sub_fetch(block_mark(p), 1, __ATOMIC_RELAXED);
        record_push(t, who_record(t, number));
    }
    __atomic_sub_fetch(&t->writers, 1, __ATOMIC_RELEASE);
}

/* ---- samples ---- */

/* The stack from the caller's frame up, as far as it can be read: a page that cannot be ends it. By words where a sanitizer would look on. */
__attribute__((no_sanitize("address", "thread"))) static uint32_t stack_copy(uint64_t *to, uintptr_t from)
{
    size_t page = os_page_size(), bytes = 0, most = size_min(WHO_STACK, os_stack_end(from) - from);
    for (size_t n; bytes < most; bytes += n) {
        n = size_min(most - bytes, page - (from + bytes) % page);
        if (bytes > 0 && !os_readable((const void *)(from + bytes))) /* NOLINT: a register's value */
            break;
        if (!PM_SANITIZED)
            memcpy((char *)to + bytes, (const char *)from + bytes, n); /* NOLINT */
        for (size_t i = bytes; PM_SANITIZED && i < bytes + n; i += sizeof *to)
            to[i / sizeof *to] = *(const volatile uint64_t *)(from + i); /* NOLINT */
    }
    return (uint32_t)bytes;
}

static void sample_write(who_table *t, who_sample *s, const void *p, size_t size, uint64_t weight)
{
    s->number = __atomic_add_fetch(&t->taken, 1, __ATOMIC_RELAXED);
    s->block = (uintptr_t)p;
    s->size = size;
    s->weight = weight;
    s->when = os_now_ms();
    s->thread = os_thread();
    os_registers_save(&s->registers);
    s->stack_bytes = s->registers.sp ? stack_copy((uint64_t *)(s + 1), s->registers.sp) : 0; /* on multiples of 16 */
}

static NOINLINE void sample_take(who_table *t, const void *p, size_t size, uint64_t weight)
{
    if (place_find(t, p)) /* given back by a way that passed us by */
        sample_drop(t, p);
    __atomic_add_fetch(&t->writers, 1, __ATOMIC_ACQUIRE);
    uint64_t *place = place_claim(t, p);
    who_sample *s = place ? record_pop(t) : NULL;
    if (s) {
        sample_write(t, s, p, size, weight);
        *number_at(t, place) = who_number(t, s);
        __atomic_add_fetch(&t->pages, sample_pages(s), __ATOMIC_RELAXED);
        __atomic_add_fetch(block_mark(p), 1, __ATOMIC_RELAXED);
        __atomic_store_n(place, (uintptr_t)p, __ATOMIC_RELEASE);
    } else {
        if (place)
            STORE(place, 0);
        __atomic_add_fetch(&t->missed, weight, __ATOMIC_RELAXED);
    }
    __atomic_sub_fetch(&t->writers, 1, __ATOMIC_RELEASE);
}

/* ---- how often ---- */

static int64_t tokens_draw(who_table *t)
{
    uint64_t then = LOAD(&t->refilled), now = os_now_ms();
    int64_t left = __atomic_sub_fetch(&t->tokens, 1, __ATOMIC_RELAXED);
    if (now > then && __atomic_compare_exchange_n(&t->refilled, &then, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        int64_t more = (int64_t)size_min((now - then) * TOKENS_A_MS, TOKENS_MOST);
        left = __atomic_add_fetch(&t->tokens, left + more > TOKENS_MOST ? TOKENS_MOST - left : more, __ATOMIC_RELAXED);
    }
    return left;
}

/* Times two for each sixteenth of the last quarter of memory (a page a record), or of tokens, that is gone: neither ever runs
 * out, and each sample says itself how much it stands for. */
static unsigned rate_shift(who_table *t)
{
    int64_t quarter = t->records / 4, tokens = TOKENS_MOST / 4;
    int64_t by_pages = ((int64_t)LOAD(&t->pages) - 3 * quarter) * SHIFT_MOST / quarter;
    int64_t by_time = (tokens - tokens_draw(t)) * SHIFT_MOST / tokens;
    int64_t shift = by_pages > by_time ? by_pages : by_time;
    return shift < 0 ? 0 : shift > SHIFT_MOST ? SHIFT_MOST : (unsigned)shift;
}

static uint64_t random_next(void)
{
    if (step.random == 0)
        step.random = (os_random() ^ (uintptr_t)&step ^ os_now_ms() << 20) | 1;
    step.random ^= step.random << 13;
    step.random ^= step.random >> 7;
    return step.random ^= step.random << 17;
}

/* Steps of a half to one and a half times the mean: random enough for any pattern of requests, and less noise than waiting
 * times. The first one may end at once. */
static void step_begin(who_table *t, uint64_t word)
{
    bool first = step.began != (uint32_t)t->began;
    step.began = (uint32_t)t->began;
    step.mean = (uint64_t)who_word_rate(word) << rate_shift(t);
    if (first)
        pm_unwatched = (int64_t)(random_next() % step.mean);
    else
        pm_unwatched += (int64_t)(step.mean / 2 + random_next() % step.mean);
}

/* Requests as large as the mean are all sampled, and stand for themselves. */
static void who_alloc(const void *p, size_t size)
{
    uint64_t word = LOAD(&pm_asked);
    who_table *t = session();
    if (!word || (!t && !(t = session_begin())))
        return;
    heap_lend();
    if (UNLIKELY(++step.calls % LOOKS == 0))
        session_expire(word);
    if (UNLIKELY(step.began != (uint32_t)t->began))
        step_begin(t, word);
    uint64_t bytes = size_max(size, 1);
    if (bytes >= step.mean) {
        sample_take(t, p, size, bytes);
        step.mean = (uint64_t)who_word_rate(word) << rate_shift(t);
    } else if ((pm_unwatched -= (int64_t)bytes) < 0) {
        sample_take(t, p, size, step.mean);
        step_begin(t, word);
    }
}

static void who_free(const void *p, size_t usable)
{
    (void)usable;
    who_table *t = session();
    if (UNLIKELY(t && LOAD(block_mark(p))))
        sample_drop(t, p);
}

/* ---- on, off ---- */

static void who_end(void)
{
    if (LOAD(&pm_asked) || !session() || !os_lock_try(&lock))
        return;
    who_table *t = pm_samples;
    if (!LOAD(&pm_asked) && LOAD(&t->writers) == 0)
        table_clear(t);
    os_lock_give(&lock);
}

void who_init(void)
{
    static const watcher ours = {.alloc = who_alloc, .free = who_free, .end = who_end};
    watch_register(&ours, false);
    ready = true;
}

bool who_start(size_t rate)
{
    if (ready)
        STORE(&pm_asked, who_word(rate ? rate : WHO_RATE, 0));
    return ready;
}

void who_stop(void) { STORE(&pm_asked, 0); }
