/* sampler.c: see sampler.h. */
#include "sampler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define END_MS 3000        /* of silence, after which the process stops by itself */
#define RECORDS_MOST 65536
#define AT_ONCE 64

/* ---- asking ---- */

static bool word_write(const sampler *s, uint64_t word)
{
    struct iovec local = {&word, sizeof word}, remote = {(void *)(uintptr_t)s->control.asked, sizeof word};
    return process_vm_writev(s->pid, &local, 1, &remote, 1, 0) == (ssize_t)sizeof word;
}

/* Another who, or the process itself, may have written it meanwhile: for ever stays for ever, and the later end holds. */
static live_result ask(sampler *s, size_t rate)
{
    uint64_t now = 0;
    live_result result = live_read(s->pid, s->control.asked, &now, sizeof now);
    if (result != LIVE_FOUND)
        return result;
    s->word = now && !who_word_end(now) ? 0 : who_word(now ? who_word_rate(now) : rate, os_now_ms() + END_MS);
    errno = 0;
    if (!s->word || word_write(s, s->word))
        return LIVE_FOUND;
    return errno == ESRCH ? LIVE_NO_PROCESS : errno == EFAULT ? LIVE_CHANGED : LIVE_NO_PERMISSION;
}

live_result sampler_beat(sampler *s) { return ask(s, s->word ? who_word_rate(s->word) : WHO_RATE); }

live_result sampler_open(sampler *s, pid_t pid, size_t rate)
{
    memset(s, 0, sizeof *s);
    s->pid = pid;
    live_result result = live_check(pid, &s->control);
    s->began = os_now_ms();
    return result == LIVE_FOUND ? ask(s, rate) : result;
}

void sampler_close(sampler *s)
{
    uint64_t now = 0;
    if (s->word && live_read(s->pid, s->control.asked, &now, sizeof now) == LIVE_FOUND && now == s->word)
        word_write(s, 0);
    free(s->places);
    free(s->numbers);
}

/* ---- reading ---- */

static bool table_sane(const who_table *t)
{
    size_t front = WHO_FRONT(t->records);
    return memcmp(t->magic, WHO_MAGIC, sizeof WHO_MAGIC) == 0 && t->layout == sizeof(who_sample) && t->records <= RECORDS_MOST &&
           t->records_at >= front && t->records_at <= front + WHO_RECORD && t->bytes == t->records_at + t->records * WHO_RECORD;
}

/* LIVE_STARTING: nothing was sampled yet. */
static live_result table_read(sampler *s, const char **at)
{
    live_result result = live_read(s->pid, s->control.samples, at, sizeof *at);
    if (result != LIVE_FOUND || !*at)
        return result == LIVE_FOUND ? LIVE_STARTING : result;
    result = live_read(s->pid, *at, &s->table, sizeof s->table);
    if (result != LIVE_FOUND)
        return result;
    return table_sane(&s->table) ? LIVE_FOUND : LIVE_DAMAGED;
}

static bool buffers_hold(sampler *s)
{
    size_t places = (size_t)s->table.records * WHO_PLACES;
    if (s->room >= s->table.records)
        return true;
    free(s->places);
    free(s->numbers);
    s->places = malloc(places * sizeof *s->places);
    s->numbers = malloc(places * sizeof *s->numbers);
    s->room = s->places && s->numbers ? s->table.records : 0;
    return s->room > 0;
}

static live_result places_read(sampler *s, const char *at, uint64_t *to)
{
    return live_read(s->pid, at + 4 * KIB, to, (size_t)s->table.records * WHO_PLACES * sizeof *to);
}

static bool sample_sane(const sampler *s, const who_sample *r, uint64_t address)
{
    return r->block == address && r->number - 1 < s->table.taken + RECORDS_MOST && r->weight > 0 && r->stack_bytes <= WHO_STACK &&
           r->weight < (uint64_t)1 << 56;
}

/* Heads of the records at the places [from, from + count), all of them in use. */
static live_result heads_read(const sampler *s, const char *at, const size_t *which, size_t count, who_sample *heads)
{
    struct iovec local[AT_ONCE] = {{0}}, remote[AT_ONCE] = {{0}};
    for (size_t i = 0; i < count; i++) {
        local[i] = (struct iovec){&heads[i], sizeof *heads};
        remote[i] = (struct iovec){(void *)(uintptr_t)(at + s->table.records_at + (size_t)s->numbers[which[i]] * WHO_RECORD), sizeof *heads};
    }
    return process_vm_readv(s->pid, local, count, remote, count, 0) == (ssize_t)(count * sizeof *heads) ? LIVE_FOUND : LIVE_CHANGED;
}

/* It still says what it said when all were read. The place first: its number stays as long as it does, and after it may be old. */
static bool place_stands(const sampler *s, const char *at, size_t which)
{
    const uint64_t *place = who_places((const who_table *)(const void *)at) + which;
    const uint32_t *number = (const uint32_t *)(place - which + (size_t)s->table.records * WHO_PLACES) + which;
    uint64_t address = 0;
    uint32_t record = 0;
    return live_read(s->pid, place, &address, sizeof address) == LIVE_FOUND && address == s->places[which] &&
           live_read(s->pid, number, &record, sizeof record) == LIVE_FOUND && record == s->numbers[which];
}

/* Its block may have been freed, the record have served another one and be back: then it does not say the same once more. Or all
 * was cleared meanwhile. */
static bool record_damaged(const sampler *s, const char *at, size_t which, const who_sample *r)
{
    who_sample now;
    uint64_t began = 0;
    return place_stands(s, at, which) && heads_read(s, at, &which, 1, &now) == LIVE_FOUND &&
           memcmp(&now, r, sizeof now) == 0 && /* NOLINT: both are copies of the same bytes */
           live_read(s->pid, at + offsetof(who_table, began), &began, sizeof began) == LIVE_FOUND && began == s->table.began;
}

static live_result batch_take(sampler *s, const char *at, const size_t *which, size_t count, bool all, sample_reader *reader)
{
    who_sample heads[AT_ONCE];
    char stack[WHO_STACK];
    live_result result = heads_read(s, at, which, count, heads);
    for (size_t i = 0; result == LIVE_FOUND && i < count; i++) {
        const who_sample *r = &heads[i];
        const char *from = at + s->table.records_at + (size_t)s->numbers[which[i]] * WHO_RECORD + sizeof *r;
        uint64_t number = 0;
        if (!all && r->when + 10 < s->began) /* the coarse clock is a little late */
            continue;
        bool wanted = sample_sane(s, r, s->places[which[i]]) && reader->wanted(reader->context, r->number);
        if (wanted)
            result = live_read(s->pid, from, stack, r->stack_bytes);
        if (result == LIVE_FOUND)
            result = live_read(s->pid, from - sizeof *r, &number, sizeof number);
        if (result != LIVE_FOUND || number != r->number) /* its block was freed, and another one is here */
            continue;
        if (sample_sane(s, r, s->places[which[i]]))
            reader->take(reader->context, r, wanted ? stack : NULL);
        else
            reader->torn += record_damaged(s, at, which[i], r);
    }
    return result;
}

live_result sampler_read(sampler *s, bool all, sample_reader *reader)
{
    const char *at = NULL;
    live_result result = table_read(s, &at);
    if (result == LIVE_STARTING || (result == LIVE_FOUND && !s->table.began))
        return LIVE_FOUND;
    if (result == LIVE_FOUND && !buffers_hold(s))
        return LIVE_NO_MEMORY;
    size_t places = (size_t)s->table.records * WHO_PLACES, which[AT_ONCE], count = 0;
    if (result == LIVE_FOUND)
        result = places_read(s, at, s->places);
    if (result == LIVE_FOUND)
        result = live_read(s->pid, at + 4 * KIB + places * sizeof *s->places, s->numbers, places * sizeof *s->numbers);
    for (size_t i = 0; result == LIVE_FOUND && i < places; i++) {
        if (s->places[i] > WHO_BUSY && s->numbers[i] < s->table.records)
            which[count++] = i;
        else
            reader->torn += s->places[i] > WHO_BUSY;
        if (count == AT_ONCE) {
            result = batch_take(s, at, which, count, all, reader);
            count = 0;
        }
    }
    if (result == LIVE_FOUND && count > 0)
        result = batch_take(s, at, which, count, all, reader);
    return result;
}
