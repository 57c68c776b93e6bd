/* large.c: the next allocator's blocks at hand, over a next allocator and a clock of the test's own. */
#include "unit.h"
#include "start.h"
#include "meet.h"
#include "preload/large.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 400
#define SIZE (100 * KIB)

static _Atomic uint64_t now = 1000;
uint64_t __wrap_os_now_ms(void);
uint64_t __wrap_os_now_ms(void) { return now; }

/* ---- the next allocator: words in front of each block say how large it is and where it begins; none begins with a page, as
 * those are not kept ---- */

static _Atomic size_t next_blocks, next_bytes, next_calls;

static void *next_malloc(size_t size)
{
    char *raw = malloc(size + 2 * QUANTUM);
    size_t *p = (size_t *)(raw + ((uintptr_t)(raw + QUANTUM) % 4096 == 0 ? 2 * QUANTUM : QUANTUM));
    p[-2] = size;
    p[-1] = (uintptr_t)raw;
    next_blocks++;
    next_calls++;
    next_bytes += size;
    return p;
}
static size_t next_size(void *p) { return ((size_t *)p)[-2]; }
/* Where it has a lock, a signal handler's slow path may come in between: that must not come here. */
static void handler_comes(void)
{
    static __thread int inside;
    assert_int_equal(inside++, 0);
    if (pm_storer)
        pm_storer->tick();
    inside--;
}
static void next_free(void *p)
{
    handler_comes();
    errno = EINTR; /* an unkind one */
    next_blocks--;
    next_bytes -= next_size(p);
    memset(p, 0xee, 64);
    free((void *)((uintptr_t *)p)[-1]);
}
static size_t mapped_from;
static size_t wanted_meanwhile; /* by a handler that comes in between */
void next_map_from(size_t bytes);
void next_arenas_most(unsigned n);
next_allocator pm_next = {.malloc = next_malloc, .free = next_free, .malloc_usable_size = next_size};

/* ---- malloc and free as malloc.c has them ---- */

static void *take(size_t size)
{
    void *p = large_take(size);
    p = p ? p : large_more(size);
    return p ? p : large_got(pm_next.malloc(large_round(size)));
}
static void give(void *p)
{
    if (!large_put(p))
        large_give(p);
}

static unsigned arenas_most;
void next_arenas_most(unsigned n) { arenas_most = n; }

/* A lock of the C library's is held: nobody comes here again. */
void next_map_from(size_t bytes)
{
    static int inside;
    assert_int_equal(inside++, 0);
    if (wanted_meanwhile) {
        give(take(wanted_meanwhile));
        give(take(wanted_meanwhile));
    }
    mapped_from = bytes;
    inside--;
}

static size_t bytes_at_hand(void)
{
    pm_stats s;
    stats_copy(&s, sizeof s, true);
    return s.kept_bytes;
}

static void *live[MANY];
static void live_make(size_t n)
{
    for (size_t i = 0; i < n; i++)
        live[i] = take(SIZE);
}
static void live_end(size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (live[i])
            give(live[i]);
        live[i] = NULL;
    }
}

/* `n` blocks go and come until the bin has learned to keep them; what then is at hand. */
static size_t keep(size_t n)
{
    void *p[MANY];
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < n; i++)
            p[i] = take(SIZE);
        for (size_t i = 0; i < n; i++)
            give(p[i]);
    }
    return bytes_at_hand();
}

static int begin(void **state)
{
    (void)state;
    pm_storer->idle(thread_heap());
    pools_trim();
    assert_int_equal(bytes_at_hand(), 0);
    assert_int_equal(next_blocks, 0);
    live_make(100);
    return 0;
}
static int end(void **state)
{
    (void)state;
    live_end(100);
    pm_storer->idle(thread_heap());
    pools_trim();
    assert_int_equal(next_blocks, 0);
    assert_int_equal(bytes_at_hand(), 0);
    return 0;
}

/* ---- the tests ---- */

TEST(sizes_round_up_by_an_eighth)
{
    for (size_t size = KEPT_LEAST + 1; size <= 32 * MIB; size += size / 100) {
        size_t most = large_round(size);
        assert_true(most >= size && most - size <= size / 8);
        assert_int_equal(large_class_held(most), large_class(size)); /* what was asked for comes back to its bin */
        assert_int_equal(large_class_held(most - 1) + 1, large_class(size));
        assert_int_equal(kept_size(large_class(size)), most);
    }
    assert_int_equal(large_round(KEPT_LEAST), KEPT_LEAST);
    assert_int_equal(large_round(32 * MIB + 1), 32 * MIB + 1);
    assert_true(large_class_held(0) >= KEPT_BINS && large_class_held(KEPT_LEAST) >= KEPT_BINS);
}

/* The first of all tests, as nothing lowers it again. */
TEST(what_is_wanted_again_raises_what_is_mapped)
{
    assert_int_equal(mapped_from, 128 * KIB); /* with the first large block */
    give(take(MIB));
    assert_int_equal(mapped_from, 128 * KIB);
    wanted_meanwhile = 2 * MIB;
    give(take(MIB));
    assert_int_equal(mapped_from, MIB + MIB / 8);
    wanted_meanwhile = 0;
    give(take(256 * KIB));
    give(take(256 * KIB));
    assert_int_equal(mapped_from, MIB + MIB / 8);
    give(take(32 * MIB));
    give(take(32 * MIB));
    assert_int_equal(mapped_from, 32 * MIB);
    assert_true(arenas_most >= 1);
}

TEST(the_first_free_keeps_nothing)
{
    size_t before = next_blocks;
    live_end(100);
    assert_int_equal(next_blocks, before - 100);
    assert_int_equal(bytes_at_hand(), 0);
    live_make(100);
}

TEST(what_is_wanted_again_is_kept)
{
    size_t held = keep(4), calls = next_calls;
    assert_int_equal(held, 4 * large_round(SIZE));
    keep(4);
    assert_int_equal(next_calls, calls); /* not one call more */
    assert_true(meetings_with("large_keep") >= 4);
    void *p = take(SIZE - SIZE / 9); /* a class less is served too */
    assert_int_equal(bytes_at_hand(), held - large_round(SIZE));
    give(p);
}

TEST(what_is_kept_is_bounded)
{
    assert_int_equal(keep(200), 64 * large_round(SIZE)); /* of one size */
    pools_trim();
    live_end(90); /* ten stay */
    size_t held = keep(5);
    assert_true(held > 0 && held <= next_blocks * large_round(SIZE) * 3 / 4);
    assert_true(keep(100) <= next_blocks * large_round(SIZE) * 3 / 4);
    live_make(90);
}

TEST(a_fall_leaves_nothing)
{
    assert_true(keep(50) > 0);
    live_end(99);
    assert_true(meetings_with("large_fall") > 0);
    assert_true(next_blocks <= 4);
    for (int i = 0; i < 99; i++)
        live[i] = take(SIZE);
}

TEST(what_rests_goes_back)
{
    assert_true(keep(8) > 0);
    errno = 0;
    for (int i = 0; i < 100; i++) {
        now += 600; /* the delay is 1,000 */
        pm_storer->tick();
    }
    assert_int_equal(errno, 0);
    assert_int_equal(bytes_at_hand(), 0);
    assert_int_equal(next_blocks, 100);
    assert_true(meetings_with("large_old") > 0);
}

TEST(what_is_used_stays)
{
    size_t held = keep(4);
    for (int i = 0; i < 20; i++, now += 1100) {
        pm_storer->tick();
        assert_int_equal(keep(4), held);
    }
}

TEST(a_trim_gives_it_back)
{
    size_t held = keep(8);
    assert_true(pools_trim() >= held);
    assert_int_equal(bytes_at_hand(), 0);
    assert_int_equal(next_blocks, 100);
    assert_int_equal(keep(8), held); /* and it learns anew */
}

static pthread_barrier_t barrier;

static void *keep_and_sleep(void *ends)
{
    keep(8);
    pthread_barrier_wait(&barrier);
    if (!ends)
        pthread_barrier_wait(&barrier);
    return NULL;
}

static pthread_t sleeper(void *ends)
{
    pthread_t t;
    pthread_barrier_init(&barrier, NULL, 2);
    assert_int_equal(pthread_create(&t, NULL, keep_and_sleep, ends), 0);
    pthread_barrier_wait(&barrier);
    return t;
}

TEST(a_thread_that_ends_leaves_it_to_the_next)
{
    pthread_join(sleeper(&barrier), NULL);
    size_t held = bytes_at_hand(), calls = next_calls;
    assert_int_equal(held, 8 * large_round(SIZE));
    void *p[8];
    for (int i = 0; i < 8; i++)
        p[i] = take(SIZE);
    assert_int_equal(next_calls, calls);
    assert_int_equal(bytes_at_hand(), 0);
    for (int i = 0; i < 8; i++)
        give(p[i]);
    assert_int_equal(bytes_at_hand(), held);
    for (int i = 0; i < 100; i++, now += 600)
        pm_storer->tick();
    assert_int_equal(bytes_at_hand(), 0);
    assert_int_equal(next_blocks, 100);
}

static void *free_all(void *blocks)
{
    for (void **p = blocks; *p; p++)
        give(*p);
    return NULL;
}

static void in_another_thread(void *(*f)(void *), void *argument)
{
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, f, argument), 0);
    pthread_join(t, NULL);
}

/* One thread asks, others free: what is at hand is at hand for all. */
TEST(what_others_free_is_kept)
{
    void *p[9] = {NULL};
    size_t calls = 0;
    for (int round = 0; round < 4; round++) {
        calls = next_calls;
        for (int i = 0; i < 8; i++)
            p[i] = take(SIZE);
        in_another_thread(free_all, p);
    }
    assert_int_equal(next_calls, calls); /* not one call in the last round */
    assert_true(meetings_with("large_share") >= 8);
    assert_int_equal(bytes_at_hand(), 8 * large_round(SIZE));
    live_end(99); /* the program comes down */
    assert_true(bytes_at_hand() <= 2 * MIB);
    for (int i = 0; i < 99; i++)
        live[i] = take(SIZE);
}

#define HANDED 64
static void *handed[HANDED];
static void *swap(void *seed)
{
    uint64_t s = (uintptr_t)seed;
    for (int i = 0; i < 20000; i++) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        size_t *p = take(SIZE);
        *p = s;
        p = __atomic_exchange_n(&handed[s >> 58], p, __ATOMIC_ACQ_REL);
        if (p)
            give(p);
        if (i % 1000 == 0)
            pm_storer->tick();
    }
    return NULL;
}

/* Nobody has a block that somebody else has, and none is lost. */
TEST(threads_share)
{
    pthread_t t[3];
    for (uintptr_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, swap, (void *)(i + 1)), 0);
    for (int i = 0; i < 100; i++)
        pm_storer->trim();
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < HANDED; i++)
        if (handed[i])
            give(handed[i]);
    pm_storer->idle(thread_heap());
    pools_trim();
    assert_int_equal(bytes_at_hand(), 0);
    assert_int_equal(next_blocks, 100);
}

TEST(a_sleeping_thread_is_robbed)
{
    pthread_t t = sleeper(NULL);
    assert_true(bytes_at_hand() > 0);
    for (int i = 0; i < 50; i++, now += 600)
        pm_storer->tick();
    assert_int_equal(bytes_at_hand(), 0);
    assert_int_equal(next_blocks, 100);
    assert_true(meetings_with("large_rob") > 0);
    pthread_barrier_wait(&barrier);
    pthread_join(t, NULL);
    assert_int_equal(bytes_at_hand(), 0);
}

/* What other threads have at hand is the child's too, by looking at it. */
TEST(a_child_takes_it_over)
{
    pthread_t t = sleeper(NULL);
    size_t mine = keep(3), held = bytes_at_hand();
    pid_t child = fork();
    if (child == 0) {
        bool good = bytes_at_hand() == held && keep(3) == held && mine > 0;
        pools_trim();
        _exit(good && bytes_at_hand() == 0 && next_blocks == 100 ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    pthread_barrier_wait(&barrier);
    pthread_join(t, NULL);
}

/* A fork comes while another thread has taken a list: the child loses the blocks, but not the room for others. */
TEST(a_child_counts_what_is_there)
{
    pthread_join(sleeper(&barrier), NULL); /* leaves eight to all threads */
    kept_block **list = &pm_shared.bin[large_class(SIZE)].fresh, *taken = list_take(list);
    pid_t child = fork();
    if (child == 0) {
        bool none = bytes_at_hand() == 0;
        size_t held = keep(3);
        _exit(none && held == 3 * large_round(SIZE) && shared_bytes() == 0 ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    __atomic_store_n(list, taken, __ATOMIC_RELEASE);
    assert_int_equal(bytes_at_hand(), 8 * large_round(SIZE));
}

/* What a fork or a handler has lost, and what another thread took between two steps of its own, is room again after a while. */
TEST(what_is_lost_is_room_again)
{
    kept_bin *b = &thread_heap()->kept.bin[large_class(SIZE)];
    assert_true(keep(8) > 0);
    kept_block *lost = list_take(&b->fresh);
    for (int i = 0; i < 100; i++, now += 600)
        pm_storer->tick();
    assert_int_equal(b->limit, 0);
    assert_int_equal(bytes_at_hand(), 0);
    b->taken = 8; /* told late */
    for (int i = 0; i < 100; i++, now += 600)
        pm_storer->tick();
    assert_int_equal(b->limit, 0);
    for (kept_block *next; lost; lost = next) {
        next = lost->next;
        kept_hand_out(lost);
        give(lost);
    }
}

/* What other threads have at hand is not what the program has: else each allows the next one more. */
enum { KEEPERS = 16, KEPT_EACH = 40 };
static pthread_barrier_t all_kept, all_counted;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static void *keep_beside_others(void *unused)
{
    pthread_mutex_lock(&one_at_a_time);
    keep(KEPT_EACH);
    pthread_mutex_unlock(&one_at_a_time);
    pthread_barrier_wait(&all_kept);
    pthread_barrier_wait(&all_counted);
    return unused;
}

static void all_threads_together_are_bounded(void **state)
{
    pthread_t t[KEEPERS];
    (void)state;
    pthread_barrier_init(&all_kept, NULL, KEEPERS + 1);
    pthread_barrier_init(&all_counted, NULL, KEEPERS + 1);
    for (int i = 0; i < KEEPERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, keep_beside_others, NULL), 0);
    pthread_barrier_wait(&all_kept);
    size_t at_hand = bytes_at_hand();
    pthread_barrier_wait(&all_counted);
    for (int i = 0; i < KEEPERS; i++)
        pthread_join(t[i], NULL);
    assert_true(at_hand > 0 && at_hand <= 3 * (100 + KEPT_EACH) * large_round(SIZE));
}

#define AFRESH(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    pools_start((char *[]){NULL});
    large_init();
    const struct CMUnitTest tests[] = {
        AFRESH(what_is_wanted_again_raises_what_is_mapped), AFRESH(sizes_round_up_by_an_eighth),
        AFRESH(the_first_free_keeps_nothing), AFRESH(what_is_wanted_again_is_kept), AFRESH(what_is_kept_is_bounded),
        AFRESH(a_fall_leaves_nothing), AFRESH(what_rests_goes_back), AFRESH(what_is_used_stays), AFRESH(a_trim_gives_it_back),
        AFRESH(a_thread_that_ends_leaves_it_to_the_next), AFRESH(a_sleeping_thread_is_robbed), AFRESH(a_child_takes_it_over),
        AFRESH(a_child_counts_what_is_there), AFRESH(what_is_lost_is_room_again), AFRESH(what_others_free_is_kept),
        AFRESH(threads_share), AFRESH(all_threads_together_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
