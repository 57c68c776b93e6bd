/* tune.c: the planner behind `poolmalloc tune`. */
#include "unit.h"
#include "ground/config.h"
#include "tune_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 12345;

static unsigned below(unsigned n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(seed >> 33) % n;
}

/* Memory that a plan takes, from the definition alone, where every size asked for counts at least one block. */
static uint64_t memory_of(const demand *d, const plan *p)
{
    uint64_t cost = 0;
    uint32_t from = 0;
    for (unsigned i = 0; i < p->pools; from = p->size[i++]) {
        size_class c;
        class_shape(&c, p->size[i], QUANTUM);
        size_t per_slab = c.per_slab;
        uint64_t holes = 0;
        for (size_t s = from / 16 + 1; s <= p->size[i] / 16; s++) {
            uint64_t n = d->live[s] ? d->live[s] : d->calls[s] != 0;
            cost += n * (PLAN_SLAB_BYTES * 256 / per_slab);
            holes = size_max(holes, d->most[s] - d->live[s]);
        }
        cost += (PLAN_POOL_BYTES + size_min(holes * p->size[i], SLAB_SIZE)) * 256;
    }
    return cost;
}

static bool all_serve(const demand *d, const plan *p)
{
    uint32_t from = 0;
    for (unsigned i = 0; i < p->pools; from = p->size[i++]) {
        uint64_t asked = 0;
        for (size_t s = from / 16 + 1; s <= p->size[i] / 16; s++)
            asked += d->calls[s] + d->live[s];
        if (!asked)
            return false;
    }
    return true;
}

/* The least over every set of `pools` multiples of 16, asked for or not, that ends with `top`, each of which serves something. */
static uint64_t brute_force(const demand *d, unsigned top, unsigned pools)
{
    uint64_t best = UINT64_MAX;
    for (unsigned set = 0; set < 1u << (top - 1); set++) {
        plan p = {.pools = 0};
        if ((unsigned)__builtin_popcount(set) != pools - 1)
            continue;
        for (unsigned s = 1; s < top; s++)
            if (set >> (s - 1) & 1)
                p.size[p.pools++] = s * 16;
        p.size[p.pools++] = top * 16;
        uint64_t cost = all_serve(d, &p) ? memory_of(d, &p) : UINT64_MAX;
        best = cost < best ? cost : best;
    }
    return best;
}

static demand *demand_random(unsigned top)
{
    demand *d = calloc(1, sizeof *d);
    for (unsigned s = 1; s <= top; s++) {
        d->calls[s] = below(3) ? below(2000) : 0;
        d->live[s] = d->calls[s] && below(4) ? below((unsigned)d->calls[s] + 1) * 5 : 0;
        d->most[s] = d->live[s] + (d->calls[s] ? below(3) * below(300) : 0);
        d->peak_bytes += d->live[s] * s * 16;
    }
    d->calls[top]++;
    return d;
}

TEST(the_programme_agrees_with_brute_force)
{
    for (int i = 0; i < 1000; i++) {
        unsigned top = 1 + below(9);
        demand *d = demand_random(top);
        search *s = search_run(d, 32768);
        assert_non_null(s);
        for (unsigned k = 1; k <= s->pools; k++) {
            plan p = search_plan(s, k);
            assert_int_equal(memory_of(d, &p), s->cost[k]);
            assert_int_equal(s->cost[k], brute_force(d, top, k));
        }
        search_free(s);
        free(d);
    }
}

TEST(sizes_beyond_the_maximum_are_left_out)
{
    demand *d = calloc(1, sizeof *d);
    d->calls[4096] = d->live[4096] = d->most[4096] = 7;
    assert_null(search_run(d, 32768));
    d->calls[3] = d->live[3] = d->most[3] = 5;
    d->peak_bytes = 7 * 65536 + 5 * 40;
    search *s = search_run(d, 32768);
    assert_int_equal(s->pools, 1);
    plan p = search_plan(s, 1);
    waste w = plan_waste(d, &p);
    assert_int_equal(p.size[0], 48);
    assert_int_equal(w.beyond, 7 * 65536);
    assert_int_equal(w.requested, 5 * 40);
    assert_int_equal(w.rounding, 5 * 8);
    search_free(s);
    free(d);
}

TEST(the_knee_is_where_one_more_pool_costs_more_than_it_saves)
{
    demand *d = calloc(1, sizeof *d);
    for (unsigned s = 1; s <= 14; s++) {
        d->calls[s] = d->live[s] = 1;
        d->peak_bytes += s * 16;
    }
    search *s = search_run(d, 32768);
    assert_int_equal(search_knee(s), 1); /* 14 blocks: no second pool pays */
    search_free(s);
    d->live[3] = d->live[9] = d->live[33] = 300000;
    d->peak_bytes = 300000 * (40 + 136 + 520);
    s = search_run(d, 32768);
    unsigned knee = search_knee(s);
    plan p = search_plan(s, knee);
    assert_in_range(knee, 3, 4);
    assert_int_equal(p.size[0], 48);
    assert_int_equal(p.size[1], 144);
    assert_int_equal(p.size[2], 528);
    search_free(s);
    free(d);
}

/* A slab's worth in each process at most, or what is pre-allocated. */
TEST(holes_are_counted_up_to_a_slab)
{
    demand *d = calloc(2, sizeof *d);
    plan p = {.pools = 1, .size = {64}};
    *d = (demand){.processes = 1, .peak_bytes = 6400};
    d->calls[4] = 10;
    d->live[4] = 100;
    d->most[4] = 150;
    assert_int_equal(plan_waste(d, &p).parts, PLAN_POOL_BYTES + 50 * 64);
    d->most[4] = 1000000;
    assert_int_equal(plan_waste(d, &p).parts, PLAN_POOL_BYTES + SLAB_SIZE);
    p.count[0] = 100 + 5000;
    assert_int_equal(plan_waste(d, &p).parts, PLAN_POOL_BYTES + 5000 * 64);
    p.count[0] = 0;
    for (int i = 0; i < 3; i++)
        demand_add(&d[1], d);
    assert_int_equal(plan_waste(&d[1], &p).parts, 3 * (PLAN_POOL_BYTES + SLAB_SIZE));
    free(d);
}

TEST(demands_add_up_and_counts_are_the_greatest)
{
    demand *each = calloc(3, sizeof *each);
    each[0].live[2] = 800;
    each[1].live[1] = 1000;
    each[1].live[2] = 600;
    each[0].calls[2] = each[1].calls[1] = each[1].calls[2] = 1;
    each[0].peak_bytes = 5;
    each[1].peak_bytes = 6;
    demand_add(&each[2], &each[0]);
    demand_add(&each[2], &each[1]);
    assert_int_equal(each[2].live[2], 1400);
    assert_int_equal(each[2].live[1], 1000);
    assert_int_equal(each[2].calls[2], 2);
    assert_int_equal(each[2].peak_bytes, 11);
    plan p = {.pools = 1, .size = {32}};
    plan_count(&p, each, 2);
    assert_int_equal(p.count[0], 1600 + 200);
    free(each);
}

TEST(ladders)
{
    config c;
    config_load(&c, NULL, NULL);
    plan four = plan_ladder(4, 32768), powers = plan_ladder(1, 32768);
    assert_int_equal(four.pools, c.sizes.length); /* today's sizes are jemalloc's */
    for (unsigned i = 0; i < four.pools; i++)
        assert_int_equal(four.size[i], c.sizes.at[i].size);
    assert_int_equal(powers.pools, 12);
    for (unsigned i = 0; i < powers.pools; i++)
        assert_int_equal(powers.size[i], 16u << i);
}

static void complain(const char *line) { fail_msg("%s", line); }

TEST(what_is_printed_is_read_back)
{
    char line[2000] = "POOLMALLOC_BLOCK_SIZES=";
    char *environment[] = {line, NULL};
    for (int i = 0; i < 200; i++) {
        plan p = {.pools = 0};
        size_t start = strlen("POOLMALLOC_BLOCK_SIZES=");
        for (unsigned s = 1 + below(60); s <= PLAN_STEPS && p.pools < PLAN_POOLS; s += 1 + below(80)) {
            p.size[p.pools] = s * 16;
            p.count[p.pools++] = below(3) ? below(UINT32_MAX / 2) : 0;
        }
        assert_true(plan_print(&p, line + start, sizeof line - start) <= PLAN_POOLS * 17);
        config c;
        assert_int_equal(config_load(&c, environment, complain), 0);
        assert_int_equal(c.sizes.length, p.pools);
        for (unsigned k = 0; k < p.pools; k++) {
            assert_int_equal(c.sizes.at[k].size, p.size[k]);
            assert_int_equal(c.sizes.at[k].count, p.count[k]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_programme_agrees_with_brute_force),
        cmocka_unit_test(sizes_beyond_the_maximum_are_left_out),
        cmocka_unit_test(the_knee_is_where_one_more_pool_costs_more_than_it_saves),
        cmocka_unit_test(holes_are_counted_up_to_a_slab),
        cmocka_unit_test(demands_add_up_and_counts_are_the_greatest),
        cmocka_unit_test(ladders),
        cmocka_unit_test(what_is_printed_is_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
