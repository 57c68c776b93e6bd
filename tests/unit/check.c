/* check.c: what pm_check and the checks of arenas find: each kind of breach, made in a child, is told by its own words. */
#include "child.h"
#include "poolmalloc.h"
#include "start.h"

#include "pools/ending.h"

#include <pthread.h>

#define SIZE 4096
#define ENDS_BLOCKS 1000

static heap *mine;
static slab *partly; /* of mine: a block of it is out, most are free */
static void *out;

static bin *bin_here(void) { return &mine->bins[class_of(SIZE)]; }

/* ---- links of free blocks ---- */

static void check(void) { pools_check(); }

/* A block that lies in the bin, alone. */
static block *held(void)
{
    block *p = take_class(class_of(SIZE));
    p->next = NULL;
    bin_here()->free = p;
    return p;
}
static void link_circle(void)
{
    block *p = held();
    p->next = p;
    check();
}
static void free_and_write(void)
{
    memset(held(), 0x5a, SIZE);
    check();
}
static void free_and_link(void) /* to the middle of a block */
{
    held()->next = (block *)(void *)((char *)out + 16);
    check();
}
static void given_twice(void)
{
    const size_class *c = &pm_classes[class_of(SIZE)];
    block *b = out;
    b->next = NULL;
    slab_give(partly, c, &b, 1);
    b = out;
    slab_give(partly, c, &b, 1);
}
static void given_inside(void) { slab_check_block(partly, &pm_classes[class_of(SIZE)], (char *)out + 16); }
static void given_tail(void)
{
    const size_class *c = &pm_classes[class_of(5000)];
    void *p = take_class(class_of(5000));
    slab_check_block(slab_of(p), c, slab_first(slab_of(p), c) + c->per_slab * c->size);
}

TEST(links_are_followed)
{
    assert_exits(check, 0);
    assert_aborts(link_circle, "free blocks link in a circle: double free");
    assert_said("pm_check(0x");
    assert_aborts(free_and_write, "a link in a free block leads there: written to after it was freed");
    assert_aborts(free_and_link, "a link in a free block leads there: written to after it was freed");
    assert_aborts(given_twice, "): double free\n");
    assert_said("free(0x");
    assert_said("of 4096 bytes, pool malloc-4096: given back before");
    assert_aborts(given_inside, "): no block begins there\n");
    assert_aborts(given_tail, "): no block begins there\n");
}

/* ---- slabs, heaps, the depot ---- */

static void miscount_slab(void)
{
    partly->free++;
    check();
}
static void write_to_chained(void)
{
    block *b = out;
    slab_order(partly, &pm_classes[partly->klass]);
    memset(b, 0x5a, SIZE);
    partly->chain = b;
    check();
}
static void misplace_hint(void)
{
    const size_class *c = &pm_classes[partly->klass];
    partly->hint = (uint8_t)((c->per_slab + 63) / 64);
    check();
}
static void change_class(void)
{
    partly->klass++;
    check();
}
static void change_home(void)
{
    STORE(&partly->home, registry_heap(0));
    check();
}
static void break_list(void)
{
    static slab other;
    partly->prev = &other;
    check();
}
static void miscount_bin(void)
{
    bin_here()->room++;
    check();
}
static void miscount_spares(void)
{
    mine->spares++;
    check();
}
static void miscount_list(void)
{
    pm_depot.clean.count++;
    check();
}
static void mislink_list(void)
{
    static slab other = {.state = SLAB_USED};
    slab_list_push(&pm_depot.dirty, &other);
    check();
}
static void miscount_depot(void)
{
    pm_depot.used += pm_depot.fresh;
    check();
}

TEST(counters_are_derived_anew)
{
    assert_aborts(miscount_slab, "check: slab ");
    assert_said(" counted)");
    assert_aborts(write_to_chained, ": its chain leads to 0x5a5a5a5a5a5a5a5a: written to after it was freed");
    assert_aborts(misplace_hint, ": a free block before its hint");
    assert_aborts(change_class, ", but is not its own");
    assert_aborts(change_home, ", but is not its own");
    assert_aborts(break_list, " is broken at slab ");
    assert_aborts(miscount_bin, ", but that is not what it holds");
    assert_aborts(miscount_spares, " spares, ");
    assert_aborts(miscount_list, "check: depot.clean: ");
    assert_aborts(mislink_list, "check: depot.dirty: slab ");
    assert_aborts(miscount_depot, "check: depot: ");
}

/* ---- pools and arenas of the program ---- */

static pm_pool *pool;
static pm_arena *arena;

static void miscount_pool(void)
{
    pool->out++;
    pm_check();
}
static void steal_slab(void)
{
    pool->slabs.first->home = HEAP_NOBODY;
    pm_check();
}
static void end_arena_twice(void)
{
    pm_arena_destroy(arena);
    pm_arena_destroy(arena);
}
static void rewind_to_nothing(void)
{
    pm_arena_mark mark = pm_arena_save(arena);
    pm_arena_reset(arena);
    mark.at = (char *)mark.at + 100000;
    pm_arena_rewind(arena, mark);
}

TEST(explicit_ones_too)
{
    const pm_pool_options o = {.struct_size = sizeof o, .block_size = 100};
    pool = pm_pool_create(&o);
    arena = pm_arena_create(NULL, 0);
    assert_non_null(pool);
    assert_non_null(arena);
    void *p = pm_pool_alloc(pool);
    assert_non_null(pm_arena_alloc(arena, 100, 8));
    pm_check();
    assert_aborts(miscount_pool, "check: pool ");
    assert_said(" blocks out, ");
    assert_aborts(steal_slab, " is not its own, or not in its place");
    pm_config.check = true;
    assert_aborts(end_arena_twice, "): no arena, or one that has ended\n");
    assert_said("poolmalloc: pm_arena_destroy(0x");
    assert_aborts(rewind_to_nothing, "): the mark is void\n");
    assert_said("poolmalloc: pm_arena_rewind(0x");
    pm_config.check = false;
    pm_pool_free(pool, p);
    pm_pool_destroy(pool);
    pm_arena_destroy(arena);
}

/* ---- at the end, while other threads go on ---- */

static void end_while_a_slab_is_taken(void) /* for the first time: it is in use, and nobody's yet */
{
    slab *s = guest_slab(mine);
    s->state = SLAB_USED;
    STORE(&s->home, NULL);
    ending_check();
}

static void *end_often(void *unused)
{
    void *p[ENDS_BLOCKS];
    for (int i = 0; i < ENDS_BLOCKS; i++)
        p[i] = take_class(class_of(64));
    for (int i = 0; i < ENDS_BLOCKS; i++)
        free_block(p[i]);
    for (int i = 0; i < 20000; i++)
        ending_check();
    return unused;
}
static void end_twice_at_once(void) /* two threads in exit() */
{
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, end_often, NULL);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

TEST(the_end_finds_nothing_where_nothing_is)
{
    assert_exits(end_while_a_slab_is_taken, 0);
    assert_exits(end_twice_at_once, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_are_followed), cmocka_unit_test(counters_are_derived_anew), cmocka_unit_test(explicit_ones_too),
        cmocka_unit_test(the_end_finds_nothing_where_nothing_is),
    };
    pools_start((char *const[]){NULL});
    out = take_class(class_of(SIZE));
    mine = my_heap;
    partly = slab_of(out);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
