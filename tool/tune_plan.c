/* tune_plan.c: see tune_plan.h. May touch its arguments and pools' table of classes: no input, no output, no state. */
#include "tune_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRACTION 256 /* costs are whole numbers of 1/256 byte */

void demand_add(demand *sum, const demand *more)
{
    for (size_t s = 1; s <= PLAN_STEPS; s++) {
        sum->calls[s] += more->calls[s];
        sum->live[s] += more->live[s];
        sum->most[s] += more->most[s];
    }
    sum->peak_bytes += more->peak_bytes;
    sum->large_calls += more->large_calls;
    sum->processes += more->processes;
}

/* What a block costs with its share of the slab's tail, record and bits. */
static uint64_t block_cost(uint32_t size)
{
    size_class c;
    class_shape(&c, size, QUANTUM);
    return PLAN_SLAB_BYTES * FRACTION / c.per_slab;
}

static uint64_t live_between(const demand *d, size_t above, size_t to)
{
    uint64_t n = 0;
    for (size_t s = above / QUANTUM + 1; s <= to / QUANTUM; s++)
        n += d->live[s];
    return n;
}

/* Blocks that were live at another time and are not at the peak: holes, in slabs that do not come free for them. Of several
 * sizes, the one that changed most tells the least that it can be. */
static uint64_t holes_of(const demand *d, size_t step) { return d->most[step] > d->live[step] ? d->most[step] - d->live[step] : 0; }

/* What a pool's slabs hold beyond its live blocks: the holes, but what is more than a slab in each process was given back, or
 * kept where it is pre-allocated. */
static uint64_t part_cost(const demand *d, uint64_t holes, uint32_t size, uint64_t kept)
{
    uint64_t processes = size_max(d->processes, 1);
    return processes * PLAN_POOL_BYTES + size_min(holes * size, size_max(processes * SLAB_SIZE, kept * size));
}

static uint64_t holes_between(const demand *d, size_t above, size_t to)
{
    uint64_t most = 0;
    for (size_t s = above / QUANTUM + 1; s <= to / QUANTUM; s++)
        most = size_max(most, holes_of(d, s));
    return most;
}

static bool called_between(const demand *d, size_t above, size_t to)
{
    for (size_t s = above / QUANTUM + 1; s <= to / QUANTUM; s++)
        if (d->calls[s])
            return true;
    return false;
}

/* ---- what a plan wastes ---- */

waste plan_waste(const demand *d, const plan *p)
{
    waste w = {.rounding = 0};
    uint64_t blocks = 0, memory = 0, grains = 0;
    uint32_t below = 0;
    for (unsigned i = 0; i < p->pools; below = p->size[i++]) {
        uint64_t n = live_between(d, below, p->size[i]);
        blocks += n * p->size[i];
        memory += n * block_cost(p->size[i]) / FRACTION;
        if (called_between(d, below, p->size[i]))
            w.parts += part_cost(d, holes_between(d, below, p->size[i]), p->size[i], p->count[i] > n ? p->count[i] - n : 0);
    }
    for (size_t s = 1; s <= PLAN_STEPS; s++) {
        grains += d->live[s] * s * QUANTUM;
        w.beyond += s * QUANTUM > below ? d->live[s] * s * QUANTUM : 0;
    }
    /* Only the sum of all requests is known to the byte; what lies beyond the pools is, to the next 16. */
    w.requested = d->peak_bytes > w.beyond ? d->peak_bytes - w.beyond : grains - w.beyond;
    w.rounding = blocks - w.requested;
    w.tails = memory - blocks;
    return w;
}

/* ---- search ---- */

/* before[j]: blocks of the first j sizes. A size that was asked for, but not at the peak, counts as one block: it was
 * live once, and should not be served by a block many times as large. */
static void sizes_collect(search *s, const demand *d, size_t max, uint64_t *before)
{
    before[0] = 0;
    for (size_t i = 1; i <= max / QUANTUM; i++) {
        if (!d->calls[i] && !d->live[i])
            continue;
        s->size[s->sizes++] = (uint32_t)(i * QUANTUM);
        uint64_t blocks = d->live[i] ? d->live[i] : 1;
        before[s->sizes] = before[s->sizes - 1] + blocks;
        s->asked += blocks * i * QUANTUM;
    }
}

/* least[j], with the first j sizes served by one pool less, becomes that with one more, the last of them as large as
 * size j. Downwards, so that one row is enough, and that the holes of the pool's sizes are known as it takes more of them. */
static void pool_add(const search *s, const demand *d, const uint64_t *before, uint64_t *least, uint16_t *from)
{
    for (unsigned j = s->sizes; j > 0; j--) {
        uint64_t each = block_cost(s->size[j - 1]), best = UINT64_MAX, holes = 0;
        for (unsigned i = j; i-- > 0;) {
            holes = size_max(holes, holes_of(d, s->size[i] / QUANTUM));
            if (least[i] == UINT64_MAX)
                continue;
            uint64_t cost = least[i] + (before[j] - before[i]) * each + part_cost(d, holes, s->size[j - 1], 0) * FRACTION;
            if (cost < best) {
                best = cost;
                from[j] = (uint16_t)i;
            }
        }
        least[j] = best;
    }
    least[0] = UINT64_MAX;
}

search *search_run(const demand *d, size_t max)
{
    search *s = calloc(1, sizeof *s);
    uint64_t *before = malloc((PLAN_STEPS + 1) * sizeof *before), *least = malloc((PLAN_STEPS + 1) * sizeof *least);
    if (s && before && least) {
        sizes_collect(s, d, max, before);
        s->pools = (unsigned)size_min(s->sizes, PLAN_POOLS);
        s->from = calloc(s->pools + 1, sizeof *s->from);
    }
    if (!s || !before || !least || !s->sizes || !s->from) {
        search_free(s);
        s = NULL;
    } else {
        memset(least, 0xff, (s->sizes + 1) * sizeof *least);
        least[0] = 0;
        for (unsigned k = 1; k <= s->pools; k++) {
            pool_add(s, d, before, least, s->from[k]);
            s->cost[k] = least[s->sizes];
        }
    }
    free(before);
    free(least);
    return s;
}

void search_free(search *s)
{
    if (s)
        free(s->from);
    free(s);
}

uint64_t search_waste(const search *s, unsigned pools) { return s->cost[pools] / FRACTION - s->asked; }

unsigned search_knee(const search *s)
{
    uint64_t least = UINT64_MAX;
    unsigned k = 1;
    for (unsigned i = 1; i <= s->pools; i++)
        least = s->cost[i] < least ? s->cost[i] : least;
    while (s->cost[k] > least + least / 1000)
        k++;
    return k;
}

plan search_plan(const search *s, unsigned pools)
{
    plan p = {.pools = pools};
    for (unsigned k = pools, j = s->sizes; k > 0; j = s->from[k--][j])
        p.size[k - 1] = s->size[j - 1];
    return p;
}

/* ---- plans ---- */

void plan_count(plan *p, const demand *each, size_t n)
{
    uint32_t below = 0;
    for (unsigned i = 0; i < p->pools; below = p->size[i++]) {
        uint64_t most = 1;
        for (size_t k = 0; k < n; k++) {
            uint64_t live = live_between(&each[k], below, p->size[i]);
            most = live > most ? live : most;
        }
        p->count[i] = size_min(most + (most + 7) / 8, UINT32_MAX / 2);
    }
}

plan plan_ladder(unsigned steps, size_t max)
{
    plan p = {.pools = 0};
    for (size_t size = QUANTUM; size <= max;) {
        p.size[p.pools++] = (uint32_t)size;
        size_t top = (size_t)1 << (63 - __builtin_clzll(size));
        size += size_max(top / steps, QUANTUM);
    }
    return p;
}

size_t plan_print(const plan *p, char *to, size_t bytes)
{
    size_t used = 0;
    for (unsigned i = 0; i < p->pools && used < bytes; i++)
        used += (size_t)snprintf(to + used, bytes - used, "%s%u:%llu", i ? "," : "", p->size[i],
                                 (unsigned long long)p->count[i]);
    return size_min(used, bytes - 1);
}
