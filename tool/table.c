/* table.c: pools as a table for people: the columns of the library's own text report, sizes as K, M, G. May touch stdout and
 * insight's stats. */
#include "table.h"

#include "words.h"

#include <stdio.h>
#include <string.h>

#define HEAP_LINES 32

static bool row_shows(const pm_stats_row *r) { return r->slabs + r->waiting_slabs + r->allocations > 0; }

static void row_print(const pm_stats_row *r, int width)
{
    double use = r->capacity ? 100.0 * (double)r->used / (double)r->capacity : 0;
    printf("%-*s %10zu %7zu %10zu %10zu %10zu %6.1f %10s %12s", width, r->name, r->block_size, r->slabs + r->waiting_slabs,
           r->capacity, r->used, r->free, use, HUMAN(r->slab_tail_bytes), HUMAN(r->resident_bytes));
}

static void rows_print(const pm_stats *s)
{
    bool counts = s->pool_calls > 0;
    size_t width = strlen("malloc-32768");
    for (const pm_stats_row *r = s->row; r < s->row + s->pools; r++)
        width = row_shows(r) ? size_max(width, strlen(r->name)) : width;
    printf("%-*s %10s %7s %10s %10s %10s %6s %10s %12s", (int)width, "pool", "block size", "slabs", "capacity", "used", "free",
           "use %", "tail waste", "resident");
    printf(counts ? " %12s %10s\n" : "\n", "allocations", "peak");
    for (const pm_stats_row *r = s->row; r < s->row + s->pools; r++)
        if (row_shows(r)) {
            row_print(r, (int)width);
            if (counts)
                printf(" %12zu %10zu", r->allocations, r->peak);
            puts(r->learned ? "  learned" : "");
        }
}

static void heaps_print(const view *v)
{
    heap_stats h;
    uint32_t lines = 0;
    for (uint32_t i = 0; i < v->heap_count; i++)
        if (stats_heap(v, i, &h) && (h.live || h.hand_bytes + h.way_blocks > 0) && lines++ < HEAP_LINES)
            printf("heap %-5u %s: %s at hand, %zu blocks on their way\n", i, h.live ? "live" : "idle", HUMAN_LONG(h.hand_bytes),
                   h.way_blocks);
    if (lines > HEAP_LINES)
        printf("and %u heaps more\n", lines - HEAP_LINES);
}

void table_print(const view *v, const pm_stats *s, const char *command)
{
    printf("%s, process %u, next allocator %s\n", command, v->pid, v->next);
    rows_print(s);
    if (v->ready)
        heaps_print(v);
    printf("in use %s, resident %s, committed %s, address space %s\n", HUMAN_LONG(s->used_bytes), HUMAN_LONG(s->resident_bytes),
           HUMAN_LONG(s->committed_bytes), HUMAN_LONG(s->reserved_bytes));
    printf("forwarded calls %zu (for want of pool memory %zu), freed blocks of theirs at hand %s, served by pools ", s->forwarded_calls,
           s->forwarded_small_calls, HUMAN_LONG(s->kept_bytes));
    printf(s->pool_calls ? "%zu\n" : "not counted (POOLMALLOC_STATS=full counts)\n", s->pool_calls);
    printf("heaps %zu (idle %zu, busy %zu), slabs spare %zu, empty %zu, purged %zu (so far %zu), limit hits %zu; ", s->heaps,
           s->idle_heaps, s->busy, s->spare_slabs, s->empty_slabs, s->purged_slabs, s->purges, s->limit_hits);
    printf("remote frees %zu in %zu messages\n", s->remote_frees, s->remote_messages);
}
