/* guard.c: blocks on pages of their own: where they lie, what closes them, and what is told of their misuse. */
#include "child.h"
#include "ground/text.h"
#include "pools/guard.h"
#include "start.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define RATE 10

static void *make(size_t size)
{
    void *p = guard_alloc(size, QUANTUM, BY_MALLOC, NULL);
    assert_non_null(p);
    return p;
}

static bool give(void *p) { return guard_free(p, giving_by(CALL_FREE), SIZE_MAX, NULL); }
static size_t size_of(const void *p) { return guard_size(p, CALL_USABLE_SIZE, NULL); }

static char *page_behind(const void *p, size_t size) { return (char *)round_up((uintptr_t)p + size, os_page_size()); }

static bool is_mapped(const void *p)
{
    void *page = (void *)((uintptr_t)p & ~(os_page_size() - 1));
    return msync(page, 1, MS_ASYNC) == 0 || errno != ENOMEM;
}

TEST(a_block_ends_at_a_guard)
{
    for (size_t size = 1; size < 300 * KIB; size = size * 3 + 1) {
        char *p = make(size);
        assert_int_equal((uintptr_t)p % QUANTUM, 0);
        assert_true((size_t)(page_behind(p, size) - (p + size)) < QUANTUM);
        assert_true(os_readable((void *)((uintptr_t)p & ~(uintptr_t)7)));
        assert_false(os_readable(page_behind(p, size)));
        assert_false(os_readable((char *)((uintptr_t)p & ~(os_page_size() - 1)) - 8));
        for (size_t i = 0; i < size; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0x55, size);
        assert_int_equal(size_of(p), size);
        assert_true(give(p));
        assert_false(os_readable((void *)((uintptr_t)p & ~(uintptr_t)7))); /* and nobody's else: */
        assert_true(is_mapped(p));
    }
    void *nothing = make(0);
    assert_int_equal(size_of(nothing), 0);
    assert_true(give(nothing));
}

TEST(aligned_blocks_are_aligned)
{
    for (size_t align = QUANTUM; align <= 8 * MIB; align *= 2) {
        char *p = guard_alloc(100, align, BY_NEW, NULL);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % align, 0);
        memset(p, 1, 100);
        assert_int_equal(size_of(p), 100);
        assert_false(os_readable(page_behind(p, 100)));
        assert_true(give(p));
    }
    assert_null(guard_alloc(1, 2 * GIB, BY_MALLOC, NULL));
    assert_null(guard_alloc(PTRDIFF_MAX, QUANTUM, BY_MALLOC, NULL));
    assert_null(guard_alloc((size_t)1 << 60, QUANTUM, BY_MALLOC, NULL)); /* more than there is */
}

TEST(other_blocks_are_not_its_own)
{
    void *p = malloc(100);
    assert_false(give(p));
    assert_int_equal(size_of(p), SIZE_MAX);
    assert_null(guard_realloc(p, MIB, NULL));
    free(p);
}

/* Contents move with their pages, and within these where the ends lie otherwise. */
static void contents_move(void **state)
{
    static const size_t sizes[] = {400000, 400000 + 4096, 800000, 283000, 290000, 4 * MIB, 262145, 262146};
    (void)state;
    unsigned char *p = make(sizes[0]);
    size_t size = sizes[0];
    for (size_t i = 0; i < size; i++)
        p[i] = (unsigned char)(i * 7);
    for (size_t n = 1; n < sizeof sizes / sizeof *sizes; n++) {
        unsigned char *old = p;
        size_t kept = size_min(size, sizes[n]);
        p = guard_realloc(old, sizes[n], NULL);
        assert_non_null(p);
        assert_int_equal(size_of(p), sizes[n]);
        assert_false(os_readable((void *)((uintptr_t)old & ~(uintptr_t)7)));
        for (size_t i = 0; i < kept; i++)
            assert_int_equal(p[i], (unsigned char)(i * 7));
        size = sizes[n];
        for (size_t i = 0; i < size; i++)
            p[i] = (unsigned char)(i * 7);
    }
    assert_null(guard_realloc(p, 1000, NULL)); /* that is copied by the caller */
    assert_null(guard_realloc(p, (size_t)1 << 60, NULL));
    assert_int_equal(size_of(p), size);
    guard_check(CALL_CHECK);
    assert_true(give(p));
}

/* As a kernel before 6.18, which refuses a move when it has unmapped its target; and another thread maps something there. */
static bool is_old_kernel;
static char *foreign;
static int moves;

bool __real_os_move(void *from, size_t bytes, void *to, size_t to_bytes);
bool __wrap_os_move(void *from, size_t bytes, void *to, size_t to_bytes);
bool __wrap_os_move(void *from, size_t bytes, void *to, size_t to_bytes)
{
    moves++;
    if (!is_old_kernel)
        return __real_os_move(from, bytes, to, to_bytes);
    munmap(to, to_bytes);
    foreign = mmap(to, to_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    return false;
}

static void move_refused(void)
{
    char *p = make(400000);
    p[399999] = 1;
    moves = 0;
    is_old_kernel = true;
    bool moved = guard_realloc(p, 800000, NULL) || guard_realloc(p, 900000, NULL);
    foreign[0] = 1; /* or a fault */
    _exit(moved || moves != 1 || p[399999] != 1 || size_of(p) != 400000 || !give(p));
}

TEST(a_refused_move_takes_nothing)
{
    assert_exits(move_refused, 0);
}

/* The oldest closed block leaves when there are too many. */
static void closed_blocks_leave_in_turn(void **state)
{
    static void *p[GUARD_CLOSED + 50];
    (void)state;
    for (int i = 0; i < GUARD_CLOSED + 50; i++)
        p[i] = make(64);
    for (int i = 0; i < GUARD_CLOSED + 50; i++) {
        assert_true(give(p[i]));
        assert_true(is_mapped(p[i]));
        if (i >= GUARD_CLOSED)
            assert_false(is_mapped(p[i - GUARD_CLOSED]));
    }
    assert_false(give(p[0]));
    for (int i = 0; i < 50; i++) /* their records are used again */
        assert_true(give(make(64)));
}

/* Signal handlers that come while their thread is inside wait for nothing. */
TEST(handlers_leave_it_alone)
{
    char *p = make(400000);
    free_block(take_class(0));
    heap *h = heap_enter_mine();
    assert_non_null(h);
    assert_null(guard_alloc(100, QUANTUM, BY_MALLOC, NULL));
    assert_int_equal(size_of(p), 400000);
    assert_int_equal(size_of(state), SIZE_MAX);
    assert_true(give(p)); /* its pages stay */
    p[399999] = 1;
    assert_null(guard_realloc(p, 800000, NULL));
    guard_check(CALL_CHECK);
    heap_leave_mine(h);
    assert_int_equal(size_of(p), 400000);
    assert_true(give(p));
}

static void one_in_so_many_is_sampled(void **state)
{
    int sampled = 0, gap = 0, longest = 0;
    (void)state;
    for (int i = 0; i < 200000; i++, gap++)
        if (guard_due(1)) {
            longest = gap > longest ? gap : longest;
            gap = 0;
            sampled++;
        }
    assert_in_range(sampled, 200000 / RATE / 10 * 9, 200000 / RATE / 10 * 11);
    assert_in_range(longest, RATE, 2 * RATE - 1);
}

/* Each is found, and nothing else, whatever order they came and went in. */
TEST(many_are_found)
{
    enum { MANY = 1000 };
    static char *blocks[MANY];
    uint32_t random = 1;
    for (int i = 0; i < 20000; i++) {
        random = random * 1664525 + 1013904223;
        char **b = &blocks[(random >> 8) % MANY];
        if (*b) {
            assert_int_equal(size_of(*b), 16 + (size_t)(b - blocks));
            assert_true(give(*b));
            *b = NULL;
        } else {
            *b = make(16 + (size_t)(b - blocks));
        }
    }
    for (size_t i = 0; i < MANY; i++) {
        assert_true(!blocks[i] || size_of(blocks[i]) == 16 + i);
        assert_int_equal(size_of(page_behind(&blocks[i], 0)), SIZE_MAX);
    }
    for (size_t i = 0; i < MANY; i++)
        assert_true(!blocks[i] || give(blocks[i]));
}

/* ---- misuse ---- */

static char *victim;

static void free_twice(void)
{
    give(victim = make(100));
    give(victim);
}
static void delete_of_freed(void)
{
    give(victim = make(100));
    guard_free(victim, giving_by(CALL_DELETE), SIZE_MAX, NULL);
}
static void ask_freed(void)
{
    give(victim = make(100));
    size_of(victim);
}
static void resize_freed(void)
{
    give(victim = make(400000));
    guard_realloc(victim, 800000, NULL);
}
static void free_inside(void) { give((victim = make(100)) + 16); }
static void free_overrun(void)
{
    (victim = make(100))[100] ^= 1;
    give(victim);
}
static void check_underrun(void)
{
    (victim = make(100))[-1] ^= 1;
    guard_check(CALL_CHECK);
}
static void check_new(void)
{
    (victim = guard_alloc(100, QUANTUM, BY_NEW_ARRAY, (const void *)0x1234))[103] ^= 1;
    guard_check(CALL_EXIT);
}

TEST(misuse_is_told)
{
    assert_aborts(free_twice, "): double free\n");
    assert_said("poolmalloc: free(0x");
    assert_said(" of 100 bytes, on pages of its own: given back ");
    assert_said("poolmalloc: thread ");
    assert_said("poolmalloc: made by thread ");
    assert_said("poolmalloc: given back by thread ");
    assert_aborts(delete_of_freed, "operator delete(0x");
    assert_aborts(ask_freed, "): freed before\n");
    assert_said("malloc_usable_size(0x");
    assert_aborts(resize_freed, "realloc(0x");
    assert_aborts(free_inside, "): no block begins there\n");
    assert_said(": in use, 100 bytes asked for by malloc\n");
    assert_aborts(free_overrun, "): written past its end\n");
    assert_aborts(check_underrun, "): written before its beginning\n");
    assert_said("pm_check(0x");
    assert_aborts(check_new, " by new[]\n");
    assert_said("exit(0x");
    assert_said("made by thread ");
    assert_said(" from 0x1234");
}

/* The program's handler gets what it would have got, and the report comes before. */
static void faulted(int number)
{
    (void)number;
    _exit(77);
}

static void watch(size_t size)
{
    signal(SIGSEGV, faulted);
    while (!guard_due(1))
        ;
    victim = make(size);
}

static void read_past(void)
{
    watch(4096);
    *(volatile char *)(victim + 4096);
}
static void write_before(void)
{
    watch(4096);
    *(volatile char *)(victim - 1) = 1;
}
static void read_freed(void)
{
    watch(64);
    give(victim);
    *(volatile char *)victim;
}
static void read_elsewhere(void)
{
    watch(64);
    victim = mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *(volatile char *)victim;
}

TEST(faults_are_told)
{
    if (PM_SANITIZED) /* whose runtimes have SIGSEGV for themselves */
        skip();
    assert_exits(read_past, 77);
    assert_said("poolmalloc: access(0x");
    assert_said("): used past its end\n");
    assert_exits(write_before, 77);
    assert_said("): used before its beginning\n");
    assert_exits(read_freed, 77);
    assert_said("): used after it was given back\n");
    assert_exits(read_elsewhere, 77);
    assert_string_equal(child_said, "");
}

/* ---- the form of a report ---- */

static misuse told;
static char report_file[] = "/tmp/poolmalloc-misuse-XXXXXX";

static void tell(void) { misuse_tell(&told); }
static void tell_to_file(void)
{
    strcpy(pm_config.stats_file, report_file);
    misuse_tell(&told);
}
static void tell_nobody(void)
{
    pm_stderr = -1;
    misuse_tell(&told);
}

TEST(a_report_says_what_is_known)
{
    told = (misuse){.call = CALL_DELETE_ARRAY, .pointer = &told};
    assert_true(misuse_of_giving(&told, giving_by(CALL_DELETE_ARRAY), BY_NEW, 40, 40));
    assert_exits(tell, 0);
    assert_said("): made by new\npoolmalloc: no block of the pools lies there\n");
    assert_false(misuse_of_giving(&told, giving_by(CALL_DELETE_ARRAY), BY_NEW_ARRAY, 40, 40));
    assert_false(misuse_of_giving(&told, giving_by(CALL_FREE), BY_MALLOC, 40, SIZE_MAX));
    assert_true(misuse_of_giving(&told, giving_by(CALL_FREE_SIZED), BY_MALLOC, 40, 41));
    told.block = &told;
    told.bytes = 48;
    told.state = BLOCK_FREED;
    assert_exits(tell, 0);
    assert_said("): given back as 41 bytes\n");
    assert_said(" of 48 bytes, pool malloc-48: given back before\n");
    told.state = BLOCK_NEVER;
    told.pool = "of mine";
    assert_exits(tell, 0);
    assert_said(" of 48 bytes, pool of mine: never handed out\n");
    told.block = NULL;
    assert_exits(tell, 0);
    assert_said("poolmalloc: pool of mine\n");
    assert_exits(tell_nobody, 0);
    assert_string_equal(child_said, "");
}

static void a_report_goes_to_its_file(void **state)
{
    char line[400] = "";
    (void)state;
    int fd = mkstemp(report_file);
    assert_true(fd >= 0);
    told = (misuse){.function = "pm_pool_free", .pointer = &told, .what = "double free"};
    assert_exits(tell_to_file, 0);
    assert_string_equal(child_said, "");
    assert_true(read(fd, line, sizeof line - 1) > 0);
    assert_non_null(strstr(line, "poolmalloc: pm_pool_free(0x"));
    close(fd);
    unlink(report_file);
    assert_exits(tell_to_file, 0); /* made anew */
    unlink(report_file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_blocks_are_not_its_own), cmocka_unit_test(a_block_ends_at_a_guard), cmocka_unit_test(aligned_blocks_are_aligned),
        cmocka_unit_test(contents_move), cmocka_unit_test(a_refused_move_takes_nothing),
        cmocka_unit_test(many_are_found), cmocka_unit_test(closed_blocks_leave_in_turn), cmocka_unit_test(handlers_leave_it_alone),
        cmocka_unit_test(one_in_so_many_is_sampled), cmocka_unit_test(misuse_is_told), cmocka_unit_test(faults_are_told),
        cmocka_unit_test(a_report_says_what_is_known), cmocka_unit_test(a_report_goes_to_its_file),
    };
    pools_start((char *const[]){(char[]){"POOLMALLOC_GUARD=10"}, NULL});
    guard_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
