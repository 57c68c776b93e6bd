/* tune_report.c: what `poolmalloc tune` tells: who asked for what, what each set of sizes would waste. May touch the stream it is given. */
#include "ground/config.h"
#include "tune.h"

#include <inttypes.h>
#include <stdlib.h>

static double percent(uint64_t part, uint64_t whole) { return whole ? 100.0 * (double)part / (double)whole : 0; }

/* ---- who ---- */

static int by_peak(const void *a, const void *b, void *demands)
{
    const demand *d = demands;
    uint64_t x = d[*(const size_t *)a].peak_bytes, y = d[*(const size_t *)b].peak_bytes;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void print_processes(FILE *to, const profiles *all)
{
    size_t *order = malloc(all->n * sizeof *order), shown = size_min(all->n, 8);
    if (!order)
        return;
    for (size_t i = 0; i < all->n; i++)
        order[i] = i;
    qsort_r(order, all->n, sizeof *order, by_peak, all->each);
    fprintf(to, "%-24s %10s %14s %18s\n", "program", "process", "requests", "peak, bytes");
    for (size_t i = 0; i < shown; i++) {
        const process_profile *p = &all->process[order[i]];
        fprintf(to, "%-24.24s %10u %14" PRIu64 " %18" PRIu64 "\n", p->program, p->pid, p->calls,
                all->each[order[i]].peak_bytes);
    }
    if (all->n > shown)
        fprintf(to, "and %zu more\n", all->n - shown);
    if (all->sum.large_calls)
        fprintf(to, "%" PRIu64 " requests were larger than any pool's blocks (%zu bytes)\n", all->sum.large_calls,
                BLOCK_MAX);
    free(order);
}

/* ---- histogram ---- */

size_t groups_make(const demand *d, group *groups)
{
    plan steps = plan_ladder(4, BLOCK_MAX);
    size_t n = 0;
    uint32_t below = 0;
    for (unsigned i = 0; i < steps.pools; below = steps.size[i++]) {
        group *g = &groups[i];
        *g = (group){.above = below, .to = steps.size[i]};
        for (size_t s = below / QUANTUM + 1; s <= steps.size[i] / QUANTUM; s++) {
            g->blocks += d->live[s];
            g->bytes += d->live[s] * s * QUANTUM;
            n = d->calls[s] ? i + 1 : n;
        }
    }
    return n;
}

static void print_histogram(FILE *to, const tuning *t)
{
    static const char bar[] = "##################################################";
    group groups[GROUPS_MAX];
    size_t n = groups_make(&t->all->sum, groups);
    uint64_t most = 1;
    uint64_t sum = 0;
    for (size_t i = 0; i < n; sum += groups[i++].bytes)
        most = groups[i].bytes > most ? groups[i].bytes : most;
    fprintf(to, "\nrequest size  blocks at peak  share of bytes at peak\n");
    for (size_t i = 0; i < n; i++) {
        int length = (int)((groups[i].bytes * (sizeof bar - 1) + most - 1) / most);
        if (groups[i].blocks)
            fprintf(to, "%5u-%-6u %15" PRIu64 " %5.1f%% %.*s\n", groups[i].above + 1, groups[i].to, groups[i].blocks,
                    percent(groups[i].bytes, sum), length, bar);
    }
}

/* ---- what is wasted ---- */

plan plan_default(size_t max)
{
    config c;
    plan p = {.pools = 0};
    config_load(&c, NULL, NULL);
    for (uint32_t i = 0; i < c.sizes.length && c.sizes.at[i].size <= max; i++)
        p.size[p.pools++] = c.sizes.at[i].size;
    return p;
}

static void print_waste(FILE *to, const char *name, const demand *d, plan p)
{
    waste w = plan_waste(d, &p);
    fprintf(to, "%-22s %5u %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %7.1f%%\n", name, p.pools,
            w.rounding, w.tails, w.parts, waste_sum(&w), percent(waste_sum(&w), w.requested));
}

static void print_comparison(FILE *to, const char *title, const demand *d, const tuning *t)
{
    waste w = plan_waste(d, t->chosen);
    fprintf(to, "\n%s\n%-22s %5s %12s %12s %12s %12s %8s\n", title, "block sizes", "pools", "rounding", "slab tails",
            "part-filled", "waste", "of peak");
    print_waste(to, "tuned", d, *t->chosen);
    print_waste(to, "default", d, plan_default(t->max));
    print_waste(to, "jemalloc's classes", d, plan_ladder(4, t->max));
    print_waste(to, "powers of two", d, plan_ladder(1, t->max));
    if (w.beyond)
        fprintf(to, "%" PRIu64 " bytes at the peak are in larger requests, which the next allocator serves\n",
                w.beyond);
}

/* The numbers of pools around the knee, and some on the way. */
static void print_knee(FILE *to, const tuning *t)
{
    const search *s = t->found;
    fprintf(to, "\npools   least waste*  of peak   (* beyond multiples of 16; a size not in use at the peak counts as "
                "one block)\n");
    for (unsigned k = 1; k <= s->pools; k++) {
        if (k > 4 && k % 8 != 0 && k != t->knee && k != t->knee + 1 && k + 1 != t->knee && k != t->chosen->pools &&
            k != s->pools)
            continue;
        fprintf(to, "%5u %14" PRIu64 " %8.1f%%%s%s\n", k, search_waste(s, k), percent(search_waste(s, k), s->asked),
                k == t->knee ? "  one more pool does not pay" : "", k == t->chosen->pools ? "  chosen" : "");
    }
}

/* The error of the sizes on a run that they were not made for: what they waste beyond the best that as many pools could
 * do there. */
static void print_check(FILE *to, const tuning *t)
{
    const demand *d = &t->check->sum;
    search *best = search_run(d, t->max);
    print_comparison(to, "on the profile of --check, bytes:", d, t);
    if (!best)
        return;
    plan p = search_plan(best, (unsigned)size_min(best->pools, t->chosen->pools));
    waste w = plan_waste(d, &p), tuned = plan_waste(d, t->chosen);
    print_waste(to, "best for this profile", d, p);
    fprintf(to, "error of the tuned sizes: %.1f points of peak more than the best there\n",
            percent(waste_sum(&tuned), tuned.requested) - percent(waste_sum(&w), w.requested));
    search_free(best);
}

void tune_report(FILE *to, const tuning *t)
{
    print_processes(to, t->all);
    print_histogram(to, t);
    print_comparison(to, "memory beyond what is requested, at the peak, bytes:", &t->all->sum, t);
    print_knee(to, t);
    if (t->check)
        print_check(to, t);
}
