/* who.c: See who.h. Called on slow paths, of signal handlers too: every step is an atomic one, and what cannot be had at
 * once is left. */
#include "insight/who.h"

#include "pools/alloc.h"
#include "pools/learn.h"

#include <errno.h>
#include <poolmalloc.h>
#include <string.h>

#define LOOKS 16           /* calls of a thread between two looks at the clock */
#define UNWATCHED_MOST ((int64_t)(64 * KIB)) /* bytes between two such calls, at most */
#define TOKENS_MOST 8192   /* samples in a row at the rate that was asked for */
#define TOKENS_A_MS 4      /* in the long run: a sample costs a microsecond */
#define SHIFT_MOST 16      /* the rate is doubled so often at most */
#define THIN_LINES 16      /* looked through with each sample, after the rate has doubled */

static os_lock lock;  /* begins and ends; tried only */
static bool ready;    /* set once, at start */

/* A thread's way to its next sample; pm_unwatched says how far that is. */
static __thread struct {
    uint64_t mean; /* of the step that it is on */
    int64_t left;  /* bytes of it, but for pm_unwatched */
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
        who_table *t = bytes < os_address_space() / 4 ? os_map(bytes) : NULL;
        if (t) {
            *t = (who_table){.magic = WHO_MAGIC, .layout = sizeof(who_sample), .records = (uint32_t)records, .bytes = bytes, .records_at = front};
            os_huge(t, bytes, false);
            return t;
        }
    }
    return NULL;
}

/* Lock. Nothing is sampled any more; its pages but the first go back, unless a thread is at them. One that a fork has cut off does
 * not count. */
static bool table_clear(who_table *t)
{
    __atomic_store_n(&t->began, 0, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&t->writers, __ATOMIC_SEQ_CST) > 0 && LOAD(&t->pid) == os_pid())
        return false;
    os_purge((char *)t + 4 * KIB, t->bytes - 4 * KIB);
    for (size_t i = 0; i < SAMPLE_MARKS; i++)
        STORE(&pm_sample_marks[i], 0);
    return true;
}

/* Lock. */
static void table_begin(who_table *t)
{
    uint64_t now = os_now_ms();
    if (!table_clear(t))
        return;
    if (LOAD(&t->pid) != os_pid()) /* else somebody may just be looking in */
        STORE(&t->writers, 0);
    STORE(&t->pid, os_pid());
    STORE(&t->pages, 0);
    STORE(&t->missed, 0);
    STORE(&t->free, 0);
    STORE(&t->used, 0);
    STORE(&t->shift, 0);
    STORE(&t->thinned, UINT32_MAX);
    STORE(&t->tokens, TOKENS_MOST);
    STORE(&t->refilled, now);
    if (sizes_hide(true))
        __atomic_store_n(&t->began, now, __ATOMIC_SEQ_CST);
}

INLINE who_table *table_here(void) { return __atomic_load_n((who_table **)&pm_samples, __ATOMIC_ACQUIRE); }

/* Lock-free; whoever clears the table sees that we are at it, or we see that it is cleared. */
INLINE void session_leave(who_table *t) { __atomic_sub_fetch(&t->writers, 1, __ATOMIC_RELEASE); }
INLINE who_table *session_enter(void)
{
    who_table *t = table_here();
    if (!t)
        return NULL;
    __atomic_add_fetch(&t->writers, 1, __ATOMIC_SEQ_CST);
    if (LIKELY(__atomic_load_n(&t->began, __ATOMIC_SEQ_CST)))
        return t;
    session_leave(t);
    return NULL;
}

static COLD who_table *session_begin(void)
{
    if (!os_lock_try(&lock))
        return NULL;
    who_table *t = table_here();
    if (!t && (t = table_map()) != NULL)
        __atomic_store_n(&pm_samples, t, __ATOMIC_RELEASE); /* for good */
    if (t && !LOAD(&t->began))
        table_begin(t);
    os_lock_give(&lock);
    return session_enter();
}

/* Nobody has renewed the wish in time: whoever had it is gone. */
static COLD void session_expire(uint64_t word)
{
    uint64_t end = who_word_end(word);
    if (end && os_now_ms() > end)
        __atomic_compare_exchange_n(&pm_asked, &word, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static COLD void session_end(void)
{
    who_table *t = table_here();
    if (!t || !LOAD(&t->began) || !os_lock_try(&lock))
        return;
    if (!LOAD(&pm_asked) && sizes_hide(false))
        table_clear(t);
    os_lock_give(&lock);
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
    if (place && __atomic_compare_exchange_n(place, &address, WHO_BUSY, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        who_sample *s = who_record(t, LOAD(number_at(t, place)) % t->records);
        __atomic_sub_fetch(&t->pages, sample_pages(s), __ATOMIC_RELAXED);
        __atomic_sub_fetch(block_mark(p), 1, __ATOMIC_RELAXED);
        record_push(t, s);
        __atomic_store_n(place, 0, __ATOMIC_RELEASE);
    }
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
        if (PM_SANITIZED)
            for (size_t i = bytes; i < bytes + n; i += sizeof *to)
                to[i / sizeof *to] = *(const volatile uint64_t *)(from + i); /* NOLINT */
        else
            memcpy((char *)to + bytes, (const char *)from + bytes, n); /* NOLINT */
    }
    return (uint32_t)bytes;
}

/* It has a number when it is whole: who reads meanwhile sees that it has none, or another one than before. */
static void sample_write(who_table *t, who_sample *s, const void *p, size_t size, uint64_t weight)
{
    __atomic_exchange_n(&s->number, 0, __ATOMIC_SEQ_CST); /* before what follows; a fence is refused by ThreadSanitizer */
    s->block = (uintptr_t)p;
    s->size = size;
    STORE(&s->weight, weight);
    s->when = os_now_ms();
    s->thread = heap_thread();
    os_registers_save(&s->registers);
    s->stack_bytes = s->registers.sp ? stack_copy((uint64_t *)(s + 1), s->registers.sp) : 0; /* on multiples of 16 */
    __atomic_store_n(&s->number, __atomic_add_fetch(&t->taken, 1, __ATOMIC_RELAXED), __ATOMIC_RELEASE);
}

static void sample_miss(who_table *t, uint64_t weight) { __atomic_add_fetch(&t->missed, weight, __ATOMIC_RELAXED); }

static NOINLINE void sample_take(who_table *t, const void *p, size_t size, uint64_t weight)
{
    if (place_find(t, p)) /* given back by a way that passed us by */
        sample_drop(t, p);
    uint64_t *place = place_claim(t, p);
    who_sample *s = place ? record_pop(t) : NULL;
    if (s) {
        sample_write(t, s, p, size, weight);
        STORE(number_at(t, place), who_number(t, s));
        __atomic_add_fetch(&t->pages, sample_pages(s), __ATOMIC_RELAXED);
        __atomic_add_fetch(block_mark(p), 1, __ATOMIC_RELAXED);
        __atomic_store_n(place, (uintptr_t)p, __ATOMIC_RELEASE);
    } else {
        if (place)
            STORE(place, 0);
        sample_miss(t, weight);
    }
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

/* Times two for each time that samples were thinned out, and for each sixteenth of the last eighth of memory (a page a record), or of
 * the last quarter of tokens, that is gone: neither ever runs out, and each sample says itself how much it stands for. */
static unsigned rate_shift(who_table *t)
{
    int64_t eighth = t->records / 8, tokens = TOKENS_MOST / 4;
    int64_t by_pages = ((int64_t)LOAD(&t->pages) - 7 * eighth) * SHIFT_MOST / eighth;
    int64_t by_time = (tokens - tokens_draw(t)) * SHIFT_MOST / tokens;
    int64_t shift = (by_pages > by_time ? by_pages : by_time) + LOAD(&t->shift);
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

/* One that stands for less than `mean` goes, or stands for that. Its block may be freed meanwhile, or another sample be there. */
static void sample_thin(who_table *t, const uint64_t *place, uint64_t mean)
{
    uint64_t address = LOAD(place);
    uint32_t number = LOAD(number_at(t, place));
    if (address <= WHO_BUSY || number >= t->records)
        return;
    who_sample *s = who_record(t, number);
    uint64_t weight = LOAD(&s->weight);
    if (weight >= mean)
        return;
    if (random_next() % mean >= weight)
        sample_drop(t, (const void *)address); /* NOLINT: not looked at */
    else
        __atomic_compare_exchange_n(&s->weight, &weight, mean, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* At four fifths of memory each sample is looked at once, and half of them go. */
static void table_thin(who_table *t, size_t rate)
{
    uint32_t lines = t->records * WHO_PLACES / WHO_LINE, done = LOAD(&t->thinned);
    if (done >= lines && LOAD(&t->pages) > t->records / 16 * 13 && LOAD(&t->shift) < SHIFT_MOST &&
        __atomic_compare_exchange_n(&t->thinned, &done, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        __atomic_add_fetch(&t->shift, 1, __ATOMIC_RELAXED);
        done = 0;
    }
    if (done >= lines)
        return;
    done = __atomic_fetch_add(&t->thinned, THIN_LINES, __ATOMIC_RELAXED);
    for (uint32_t i = done; i < lines && i < done + THIN_LINES; i++)
        for (int k = 0; k < WHO_LINE; k++)
            sample_thin(t, &who_places(t)[i * WHO_LINE + (uint32_t)k], (uint64_t)rate << LOAD(&t->shift));
}

/* Steps of a half to one and a half times the mean: random enough for any pattern of requests, and less noise than waiting
 * times. The first one may end at once. */
static void step_begin(who_table *t, uint64_t word)
{
    bool first = step.began != (uint32_t)LOAD(&t->began);
    step.began = (uint32_t)LOAD(&t->began);
    table_thin(t, who_word_rate(word));
    step.mean = (uint64_t)who_word_rate(word) << rate_shift(t);
    step.left = first ? (int64_t)(random_next() % step.mean) : step.left + (int64_t)(step.mean / 2 + random_next() % step.mean);
    if (first)
        pm_unwatched = 0;
}

static bool step_ends(uint64_t bytes)
{
    pm_unwatched -= (int64_t)bytes;
    if (pm_unwatched >= 0)
        return false;
    int64_t n = step.left < UNWATCHED_MOST - pm_unwatched ? step.left : UNWATCHED_MOST - pm_unwatched;
    step.left -= n;
    pm_unwatched += n;
    return pm_unwatched < 0;
}

/* Instead of block *p, where that is a pool's, one that we see the end of. False: not now. */
static bool sample_make(who_table *t, void **p, size_t size, uint64_t weight)
{
    void *seen = region_holds(*p) ? alloc_seen(*p) : *p;
    if (UNLIKELY(!seen))
        return false;
    *p = seen;
    sample_take(t, seen, size, weight);
    return true;
}

/* The next request will do as well, unless as much has been asked for again. */
static bool step_is_lost(who_table *t)
{
    if ((uint64_t)-pm_unwatched < step.mean)
        return false;
    sample_miss(t, step.mean);
    return true;
}

/* Requests as large as the mean are all sampled, and stand for themselves. */
static void *request_count(who_table *t, uint64_t word, void *p, size_t size)
{
    uint64_t bytes = size_max(size, 1);
    if (UNLIKELY(++step.calls % LOOKS == 0))
        session_expire(word);
    if (UNLIKELY(step.began != (uint32_t)LOAD(&t->began)))
        step_begin(t, word);
    if (bytes >= step.mean) {
        if (!sample_make(t, &p, size, bytes))
            sample_miss(t, bytes);
        table_thin(t, who_word_rate(word));
        step.mean = (uint64_t)who_word_rate(word) << rate_shift(t);
    } else if (step_ends(bytes) && (sample_make(t, &p, size, step.mean) || step_is_lost(t))) {
        step_begin(t, word);
    }
    return p;
}

static void *who_alloc(void *p, size_t size)
{
    uint64_t word = LOAD(&pm_asked);
    if (!word) {
        session_end();
        return p;
    }
    who_table *t = session_enter();
    if (!t && !(t = session_begin()))
        return p;
    p = request_count(t, word, p, size);
    session_leave(t);
    return p;
}

static void who_free(const void *p, size_t usable)
{
    (void)usable;
    who_table *t = LOAD(block_mark(p)) ? session_enter() : NULL;
    if (!t)
        return;
    sample_drop(t, p);
    session_leave(t);
}

/* ---- on, off ---- */

void who_init(void)
{
    static const watcher ours = {.alloc = who_alloc, .free = who_free};
    watch_register(&ours, false);
    ready = true;
}

int pm_who_start(size_t rate)
{
    if (ready)
        STORE(&pm_asked, who_word(rate ? rate : WHO_RATE, 0));
    else
        errno = ENOTSUP;
    return ready ? 0 : -1;
}

void pm_who_stop(void) { STORE(&pm_asked, 0); }
