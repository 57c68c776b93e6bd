/* sampler.c: the tool's copy of samples while they are taken, dropped and cleared: between any two reads of it, any of the
 * process's steps. None is taken for damaged, and none is half of one and half of another. */
#include "unit.h"
#include "sampler.h"

#include <string.h>
#include <sys/uio.h>

#define RECORDS 64
#define FRONT (4 * KIB + WHO_FRONT(RECORDS) / WHO_RECORD * WHO_RECORD + WHO_RECORD)

/* ---- a process: one store a step, in the order of src/insight/who.c ---- */

static union {
    who_table table;
    char bytes[FRONT + 2 * WHO_RECORD]; /* of the records two are used */
} memory;

typedef enum { BUSY, NUMBER, BLOCK, STACK, WHOLE, RECORD, PLACE, NONE, OFF, CLEAR_PLACES, CLEAR_NUMBERS, CLEAR_RECORDS, ON } what;
typedef struct step {
    what what;
    unsigned place, record;
} step;

static uint64_t taken;

static uint64_t address_of(unsigned place) { return 4096 + 16 * place; }

static void step_do(step s)
{
    who_sample *r = who_record(&memory.table, s.record);
    uint64_t *place = &who_places(&memory.table)[s.place];
    switch (s.what) {
    case BUSY: *place = WHO_BUSY; break;
    case NUMBER: r->number = 0; break;
    case BLOCK:
        r->block = address_of(s.place);
        r->weight = r->stack_bytes = sizeof(uint64_t);
        break;
    case STACK: r->size = *(uint64_t *)(void *)(r + 1) = taken + 1; break;
    case WHOLE: r->number = ++taken; break;
    case RECORD: who_numbers(&memory.table)[s.place] = s.record; break;
    case PLACE: *place = address_of(s.place); break;
    case NONE: *place = 0; break;
    case OFF: memory.table.began = 0; break;
    case CLEAR_PLACES: memset(who_places(&memory.table), 0, RECORDS * WHO_PLACES * sizeof(uint64_t)); break;
    case CLEAR_NUMBERS: memset(who_numbers(&memory.table), 0, RECORDS * WHO_PLACES * sizeof(uint32_t)); break;
    case CLEAR_RECORDS: /* what is read of them */
        for (size_t i = 0; i < 2; i++)
            memset(who_record(&memory.table, i), 0, sizeof *r + sizeof(uint64_t));
        break;
    case ON: memory.table.began = taken; break;
    }
}

#define DROP(place) {BUSY, place, 0}, {NONE, place, 0}
#define TAKE(place, record) {BUSY, place, record}, {NUMBER, place, record}, {BLOCK, place, record}, {STACK, place, record}, \
                            {WHOLE, place, record}, {RECORD, place, record}, {PLACE, place, record}
#define CLEAR {OFF, 0, 0}, {CLEAR_PLACES, 0, 0}, {CLEAR_NUMBERS, 0, 0}, {CLEAR_RECORDS, 0, 0}

/* ---- every order ---- */

#define READS 16
static const step *script;
static unsigned length, done, reads;
static unsigned before[READS]; /* steps done before each read; none before those of the table and the places */
#define FIRST 3

static void read_one(const void *from, void *to, size_t bytes)
{
    while (reads < READS && done < before[reads])
        step_do(script[done++]);
    reads++;
    assert_true((const char *)from >= memory.bytes && (const char *)from + bytes <= memory.bytes + sizeof memory);
    memcpy(to, from, bytes);
}

static const who_table *samples = &memory.table;

live_result live_read(pid_t pid, const void *from, void *to, size_t bytes)
{
    (void)pid;
    if (from == &samples) {
        reads++;
        memcpy(to, from, bytes);
    } else {
        read_one(from, to, bytes);
    }
    return LIVE_FOUND;
}

live_result live_check(pid_t pid, control *found)
{
    (void)pid;
    (void)found;
    return LIVE_FOUND;
}

ssize_t process_vm_readv(pid_t pid, const struct iovec *local, unsigned long count, const struct iovec *remote, unsigned long others,
                         unsigned long flags)
{
    ssize_t bytes = 0;
    (void)pid;
    (void)flags;
    assert_int_equal(count, others);
    for (unsigned long i = 0; i < count; i++) {
        read_one(remote[i].iov_base, local[i].iov_base, remote[i].iov_len);
        bytes += (ssize_t)remote[i].iov_len;
    }
    return bytes;
}

static bool wanted(void *context, uint64_t number)
{
    (void)context;
    return number > 0;
}

static size_t taken_whole;
static void take(void *context, const who_sample *s, const void *stack)
{
    (void)context;
    assert_int_equal(s->size, s->number);
    assert_int_equal(*(const uint64_t *)stack, s->number);
    taken_whole++;
}

static void process_begin(void)
{
    static const step first[] = {CLEAR, TAKE(0, 0), {ON, 0, 0}};
    memory.table = (who_table){.magic = WHO_MAGIC, .layout = sizeof(who_sample), .records = RECORDS, .bytes = FRONT + RECORDS * WHO_RECORD,
                               .records_at = FRONT, .taken = taken};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        step_do(first[i]);
}

/* The next way to spread the script's steps over the reads, or false. */
static bool order_next(void)
{
    unsigned i = READS, steps;
    while (i > FIRST && before[i - 1] == length)
        i--;
    if (i == FIRST)
        return false;
    for (steps = ++before[i - 1]; i < READS; i++)
        before[i] = steps;
    return true;
}

/* All orders. */
static void orders_try(const step *steps, size_t count)
{
    static sampler s = {.pid = 1};
    s.control.samples = (void *)&samples;
    script = steps;
    length = (unsigned)count;
    memset(before, 0, sizeof before);
    do {
        sample_reader reader = {wanted, take, NULL, 0};
        process_begin();
        reads = done = 0;
        assert_int_equal(sampler_read(&s, true, &reader), LIVE_FOUND);
        assert_int_equal(reader.torn, 0);
        assert_true(reads <= READS);
        for (unsigned i = reads; i < READS; i++) /* the same again: nobody reads there */
            before[i] = length;
    } while (order_next());
}
#define TRY(...) \
    do { \
        static const step steps[] = {__VA_ARGS__}; \
        orders_try(steps, sizeof steps / sizeof *steps); \
    } while (0)

TEST(the_record_serves_another_block)
{
    TRY(DROP(0), TAKE(8, 0), DROP(8));
    TRY(DROP(0), TAKE(0, 0), DROP(0));
    TRY(DROP(0), TAKE(0, 1), DROP(0));
    assert_true(taken_whole > 0);
}

TEST(and_the_block_another_record)
{
    TRY(DROP(0), TAKE(8, 0), TAKE(0, 1));
}

TEST(all_is_cleared)
{
    TRY(CLEAR, {ON, 0, 0}, TAKE(0, 0));
    TRY(CLEAR, {ON, 0, 0}, TAKE(0, 1));
}

/* That the above can fail. */
static void a_damaged_one_is_seen(void **state)
{
    static sampler s = {.pid = 1};
    sample_reader reader = {wanted, take, NULL, 0};
    (void)state;
    s.control.samples = (void *)&samples;
    process_begin();
    who_record(&memory.table, 0)->block++;
    length = done = 0;
    memset(before, 0, sizeof before);
    assert_int_equal(sampler_read(&s, true, &reader), LIVE_FOUND);
    assert_int_equal(reader.torn, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_record_serves_another_block),
        cmocka_unit_test(and_the_block_another_record),
        cmocka_unit_test(all_is_cleared),
        cmocka_unit_test(a_damaged_one_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
