/* who.c: samples of who allocates: what they sum up to when there are too many, that none outlives its block, and begins and ends
 * while threads allocate, free each other's blocks, and fork. who [ROUNDS] */
#include "unit.h"
#include "insight/who.h"
#include "pools/learn.h"
#include "start.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int rounds = 300;

/* As malloc does. */
static void *take(size_t size)
{
    void *p = bin_pop(bin_of_size(my_heap, size));
    p = p ? p : bin_pop_unwatched(size);
    return p ? p : alloc_slow(class_of(size), size);
}

static const who_table *table(void) { return __atomic_load_n((who_table **)&pm_samples, __ATOMIC_ACQUIRE); }

/* A thread notices the end after so much at the latest. */
static void who_settle(void)
{
    for (size_t bytes = 0; bytes < 128 * KIB; bytes += 500)
        free_block(take(500));
}

typedef struct sums {
    size_t samples, bytes, least, most;
} sums;

static sums table_sum(void)
{
    sums s = {0, 0, SIZE_MAX, 0};
    for (size_t i = 0; i < (size_t)table()->records * WHO_PLACES; i++) {
        if (LOAD(&who_places(table())[i]) <= WHO_BUSY)
            continue;
        size_t weight = LOAD(&who_record(table(), LOAD(&who_numbers(table())[i]))->weight);
        s.samples++;
        s.bytes += weight;
        s.least = size_min(s.least, weight);
        s.most = size_max(s.most, weight);
    }
    return s;
}

#define BLOCKS 200000
#define SIZE 500
#define RATE (16 * KIB)
static void *blocks[BLOCKS];

/* A stack of 12 KiB has three pages copied with each sample: memory for samples is short before they come too often. */
static void too_many_samples_are_thinned_out(void **state)
{
    volatile char room[12 * KIB];
    room[0] = 0;
    (void)state;
    pm_who_start(RATE);
    for (size_t i = 0; i < BLOCKS; i++)
        assert_non_null(blocks[i] = take(SIZE));
    sums s = table_sum();
    assert_true(s.samples > 500 && s.samples <= table()->records);
    assert_in_range(s.bytes, (size_t)BLOCKS * SIZE / 100 * 85, (size_t)BLOCKS * SIZE / 100 * 115);
    assert_true(LOAD(&table()->shift) > 0);
    assert_true(s.least >= RATE && s.most >> LOAD(&table()->shift) <= 2 * RATE); /* none stands for much more than the others */
    for (size_t i = 0; i < BLOCKS; i++)
        free_block(blocks[i]);
    assert_int_equal(table_sum().samples, 0);
    assert_int_equal(LOAD(&table()->pages), 0);
    assert_true(sizes_hide(true)); /* they are */
    pm_who_stop();
    who_settle();
    assert_ptr_equal(LOAD(&pm_sizes), pm_bin_offset);
    assert_int_equal(LOAD(&table()->began), 0);
    assert_int_equal(room[0], 0);
    pools_check();
}

/* Where heap 0's gate is somebody else's, the next request stands for the one that should have been sampled. */
TEST(a_sample_that_cannot_be_made_is_made_later)
{
    pm_who_start(RATE);
    for (size_t i = 0; i < 100 * RATE / SIZE; i++) {
        if (i % (2 * RATE / SIZE) == 0)
            os_lock_take(&pm_registry.gate);
        if (i % (2 * RATE / SIZE) == RATE / SIZE)
            os_lock_give(&pm_registry.gate);
        assert_non_null(blocks[i] = take(SIZE));
    }
    os_lock_give(&pm_registry.gate);
    assert_int_equal(LOAD(&table()->missed), 0);
    assert_in_range(table_sum().bytes, 90 * RATE, 110 * RATE);
    for (size_t i = 0; i < 100 * RATE / SIZE; i++)
        free_block(blocks[i]);
    pm_who_stop();
    who_settle();
}

TEST(programs_ask_for_it)
{
    assert_int_equal(pm_who_start(64 * KIB), 0);
    assert_int_equal(who_word_rate(LOAD(&pm_asked)), 64 * KIB);
    assert_int_equal(who_word_end(LOAD(&pm_asked)), 0);
    assert_int_equal(pm_who_start(0), 0);
    assert_int_equal(who_word_rate(LOAD(&pm_asked)), WHO_RATE);
    pm_who_stop();
    assert_int_equal(LOAD(&pm_asked), 0);
}

/* Asked for from outside by somebody who is gone: it ends by itself. */
TEST(a_wish_that_nobody_renews_ends)
{
    STORE(&pm_asked, who_word(4 * KIB, os_now_ms() + 60000));
    for (int i = 0; i < 2000; i++) /* more than a bin has: a slow path sees it */
        blocks[i] = take(SIZE);
    for (int i = 0; i < 2000; i++)
        free_block(blocks[i]);
    assert_int_not_equal(LOAD(&pm_asked), 0);
    assert_int_not_equal(LOAD(&table()->began), 0);
    STORE(&pm_asked, who_word(4 * KIB, os_now_ms() - 1));
    who_settle();
    assert_int_equal(LOAD(&pm_asked), 0);
    who_settle();
    assert_int_equal(LOAD(&table()->began), 0);
}

/* ---- all at once ---- */

#define THREADS 3
#define SLOTS 256
static void *slots[SLOTS]; /* exchanged, so that blocks are freed by other threads */
static bool over;

static void *busy(void *arg)
{
    uint64_t r = (uintptr_t)arg * 0x9E3779B97F4A7C15u + 1;
    while (!LOAD(&over)) {
        r ^= r << 13, r ^= r >> 7, r ^= r << 17;
        size_t size = r % 8 ? r % 700 + 1 : r % 9000 + 1;
        char *p = take(size);
        if (p)
            memset(p, 1, size);
        p = __atomic_exchange_n(&slots[(r >> 20) % SLOTS], p, __ATOMIC_ACQ_REL);
        if (p)
            free_block(p);
        p = r >> 32 & 1 ? take(64) : NULL; /* none, while there is a fork */
        if (p)
            free_block(p);
    }
    return NULL;
}

static void child_run(void)
{
    for (size_t size = 1; size < 2000; size++) {
        void *p = take(size);
        if (p)
            free_block(p);
    }
    _exit(0);
}

static void child_wait(pid_t pid)
{
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void begun_and_ended_again_and_again(void **state)
{
    pthread_t threads[THREADS];
    (void)state;
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, busy, (void *)(i + 1)), 0);
    for (int i = 0; i < rounds; i++) {
        pm_who_start((size_t)1 << (10 + i % 6));
        usleep((unsigned)(i % 5) * 200);
        pid_t pid = i % 20 == 0 ? fork() : -1;
        if (pid == 0)
            child_run();
        if (pid > 0)
            child_wait(pid);
        pm_who_stop();
        usleep((unsigned)(i % 3) * 100);
    }
    STORE(&over, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < SLOTS; i++)
        if (slots[i])
            free_block(slots[i]);
    who_settle();
    assert_true(table() && LOAD(&table()->taken) > 0);
    assert_ptr_equal(LOAD(&pm_sizes), pm_bin_offset);
    pools_check();
}

int main(int argc, char **argv)
{
    rounds = argc > 1 ? atoi(argv[1]) : rounds;
    who_init();
    pools_start((char *const[]){NULL});
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(too_many_samples_are_thinned_out),
        cmocka_unit_test(a_sample_that_cannot_be_made_is_made_later),
        cmocka_unit_test(programs_ask_for_it),
        cmocka_unit_test(a_wish_that_nobody_renews_ends),
        cmocka_unit_test(begun_and_ended_again_and_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
