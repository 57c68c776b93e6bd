/* print.c: See print.h. */
#include "insight/print.h"

#include "ground/text.h"

#include <stdio.h>
#include <string.h>

/* The totals, a row each: name, the same for Prometheus, whether it only ever grows, what it is. */
#define TOTALS(X)                                                                                                      \
    X(reserved_bytes, "reserved_bytes", "gauge", "Address space mapped for the pools.")                                \
    X(committed_bytes, "committed_bytes", "gauge", "Slabs that hold pages, records and heaps.")                        \
    X(resident_bytes, "resident_bytes", "gauge", "Slab memory that is resident.")                                      \
    X(used_bytes, "used_bytes", "gauge", "Blocks in the program's hands.")                                             \
    X(forwarded_calls, "forwarded_calls_total", "counter", "Allocations handed to the next allocator.")                \
    X(forwarded_small_calls, "forwarded_small_calls_total", "counter", "Those of them for want of pool memory.")       \
    X(pool_calls, "pool_calls_total", "counter", "Allocations served by pools (with POOLMALLOC_STATS=full).")          \
    X(heaps, "heaps", "gauge", "Heaps made.")                                                                          \
    X(idle_heaps, "idle_heaps", "gauge", "Heaps without a thread.")                                                    \
    X(spare_slabs, "spare_slabs", "gauge", "Empty slabs kept by heaps.")                                               \
    X(empty_slabs, "empty_slabs", "gauge", "Empty slabs that hold pages and belong to no heap.")                       \
    X(purged_slabs, "purged_slabs", "gauge", "Empty slabs that hold no pages.")                                        \
    X(purges, "purges_total", "counter", "Slabs whose pages went back to the system.")                                 \
    X(demoted_pools, "demoted_pools_total", "counter", "Pools of THREADS that became LOCKED: all bin numbers were taken.") \
    X(limit_hits, "limit_hits_total", "counter", "Slabs refused by POOLMALLOC_LIMIT.")                                 \
    X(remote_frees, "remote_frees_total", "counter", "Blocks sent home to another thread's heap.")                     \
    X(remote_messages, "remote_messages_total", "counter", "Messages that carried them.")                              \
    X(busy, "busy_heaps", "gauge", "Heaps whose thread allocated meanwhile: 0 means exact.")

#define ROW_FIELDS(X)                                                                                                  \
    X(block_size, "block_size_bytes", "gauge", "Bytes of a block.")                                                    \
    X(slabs, "slabs", "gauge", "Slabs that hold blocks.")                                                              \
    X(capacity, "capacity_blocks", "gauge", "Blocks that these slabs have room for.")                                  \
    X(used, "used_blocks", "gauge", "Blocks in the program's hands.")                                                  \
    X(free, "free_blocks", "gauge", "Capacity less used.")                                                             \
    X(resident_bytes, "pool_resident_bytes", "gauge", "Bytes of these slabs in memory.")                               \
    X(waiting_slabs, "waiting_slabs", "gauge", "Pre-allocated slabs not in use yet.")                                  \
    X(slab_tail_bytes, "slab_tail_bytes", "gauge", "Bytes of these slabs too few for one more block.")                 \
    X(allocations, "allocations_total", "counter", "Allocations served (with POOLMALLOC_STATS=full).")                 \
    X(peak, "peak_blocks", "gauge", "Most blocks in use at once (with POOLMALLOC_STATS=full).")

/* ---- strings ---- */

/* Names are fit to be shown; what JSON and Prometheus need beyond that is the same. */
static void write_escaped(text *t, const char *from)
{
    for (; *from; from++)
        text_add(t, *from == '"' || *from == '\\' ? "\\%c" : "%c", *from);
}

static void write_string(text *t, const char *from)
{
    text_add(t, "\"");
    write_escaped(t, from);
    text_add(t, "\"");
}

/* ---- text ---- */

static bool row_shows(const pm_stats_row *r) { return r->slabs + r->waiting_slabs + r->allocations > 0; }

static int names_width(const pm_stats *s)
{
    size_t width = strlen("malloc-32768");
    for (const pm_stats_row *r = s->row; r < s->row + s->pools; r++)
        width = row_shows(r) ? size_max(width, strlen(r->name)) : width;
    return (int)width;
}

static void write_text_row(text *t, const pm_stats_row *r, int width, bool counts)
{
    double use = r->capacity ? 100.0 * (double)r->used / (double)r->capacity : 0;
    text_add(t, "%-*s %10zu %7zu %10zu %10zu %10zu %6.1f %10zu %12zu", width, r->name, r->block_size,
             r->slabs + r->waiting_slabs, r->capacity, r->used, r->free, use, r->slab_tail_bytes, r->resident_bytes);
    text_add(t, counts ? " %12zu %10zu\n" : "\n", r->allocations, r->peak);
}

static void write_text_rows(text *t, const pm_stats *s)
{
    bool counts = s->pool_calls > 0;
    int width = names_width(s);
    text_add(t, "%-*s %10s %7s %10s %10s %10s %6s %10s %12s", width, "pool", "block size", "slabs", "capacity", "used", "free",
             "use %", "tail waste", "resident");
    text_add(t, counts ? " %12s %10s\n" : "\n", "allocations", "peak");
    for (const pm_stats_row *r = s->row; r < s->row + s->pools; r++)
        if (row_shows(r))
            write_text_row(t, r, width, counts);
}

#define HEAP_LINES 32

static void write_text_heaps(text *t, const view *v)
{
    heap_stats h;
    uint32_t lines = 0;
    for (uint32_t i = 0; i < v->heap_count; i++) {
        if (!stats_heap(v, i, &h) || (!h.live && h.hand_bytes + h.way_blocks == 0) || lines++ >= HEAP_LINES)
            continue;
        text_add(t, "heap %-5u %s: %zu bytes at hand, %zu blocks on their way\n", i, h.live ? "live" : "idle", h.hand_bytes,
                 h.way_blocks);
    }
    if (lines > HEAP_LINES)
        text_add(t, "and %u heaps more\n", lines - HEAP_LINES);
}

static void write_text(text *t, const view *v, const pm_stats *s)
{
    text_add(t, "poolmalloc " PM_VERSION ", process %u, next allocator %s; all sizes in bytes\n", v->pid, v->next);
    write_text_rows(t, s);
    if (v->ready)
        write_text_heaps(t, v);
    text_add(t, "in use %zu, resident %zu, committed %zu, address space %zu\n", s->used_bytes, s->resident_bytes,
             s->committed_bytes, s->reserved_bytes);
    text_add(t, "forwarded calls %zu (for want of pool memory %zu), served by pools ", s->forwarded_calls,
             s->forwarded_small_calls);
    text_add(t, s->pool_calls ? "%zu\n" : "not counted (POOLMALLOC_STATS=full counts)\n", s->pool_calls);
    text_add(t, "heaps %zu (idle %zu, busy %zu), spare slabs %zu, empty %zu, purged %zu (so far %zu), limit hits %zu; ",
             s->heaps, s->idle_heaps, s->busy, s->spare_slabs, s->empty_slabs, s->purged_slabs, s->purges, s->limit_hits);
    text_add(t, "remote frees %zu in %zu messages\n", s->remote_frees, s->remote_messages);
}

/* ---- JSON ---- */

static void write_json_pools(text *t, const pm_stats *s)
{
    text_add(t, ", \"pools\": [");
    for (const pm_stats_row *r = s->row; r < s->row + s->pools; r++) {
        text_add(t, "%s{\"name\": ", r > s->row ? ", " : "");
        write_string(t, r->name);
#define FIELD(field, name, kind, help) text_add(t, ", \"" #field "\": %zu", r->field);
        ROW_FIELDS(FIELD)
#undef FIELD
        text_add(t, "}");
    }
    text_add(t, "]");
}

static void write_json_heaps(text *t, const view *v)
{
    heap_stats h;
    const char *comma = "";
    text_add(t, ", \"heaps\": [");
    for (uint32_t i = 0; v->ready && i < v->heap_count; i++) {
        if (!stats_heap(v, i, &h))
            continue;
        text_add(t, "%s{\"number\": %u, \"live\": %s, \"hand_bytes\": %zu, \"way_blocks\": %zu}", comma, i,
                 h.live ? "true" : "false", h.hand_bytes, h.way_blocks);
        comma = ", ";
    }
    text_add(t, "]");
}

static void write_json(text *t, const view *v, const pm_stats *s)
{
    text_add(t, "{\"version\": \"" PM_VERSION "\", \"pid\": %u, \"next\": ", v->pid);
    write_string(t, v->next);
    write_json_pools(t, s);
    write_json_heaps(t, v);
    const char *comma = "";
    text_add(t, ", \"totals\": {");
#define FIELD(field, name, kind, help)                                                                                 \
    text_add(t, "%s\"" #field "\": %zu", comma, s->field);                                                             \
    comma = ", ";
    TOTALS(FIELD)
#undef FIELD
    text_add(t, "}}\n");
}

/* ---- Prometheus ---- */

/* A series needs labels that no other has: of pools with one name, the second is name#2. */
static void write_pool_label(text *t, const pm_stats *s, const pm_stats_row *r)
{
    unsigned before = 0;
    for (const pm_stats_row *each = s->row; each < r; each++)
        before += strncmp(each->name, r->name, sizeof r->name) == 0;
    text_add(t, "{pool=\"");
    write_escaped(t, r->name);
    text_add(t, before ? "#%u\"}" : "\"}", before + 1);
}

static void write_prometheus(text *t, const view *v, const pm_stats *s)
{
    text_add(t, "# HELP poolmalloc_info Version, process and next allocator.\n# TYPE poolmalloc_info gauge\n");
    text_add(t, "poolmalloc_info{version=\"" PM_VERSION "\",pid=\"%u\",next=", v->pid);
    write_string(t, v->next); /* the same escapes */
    text_add(t, "} 1\n");
#define FIELD(field, metric, kind, help)                                                                                 \
    text_add(t, "# HELP poolmalloc_" metric " " help "\n# TYPE poolmalloc_" metric " " kind "\npoolmalloc_" metric " %zu\n", \
             s->field);
    TOTALS(FIELD)
#undef FIELD
#define FIELD(field, metric, kind, help)                                                                               \
    text_add(t, "# HELP poolmalloc_" metric " " help "\n# TYPE poolmalloc_" metric " " kind "\n");                     \
    for (const pm_stats_row *r = s->row; r < s->row + s->pools; r++) {                                                 \
        text_add(t, "poolmalloc_" metric);                                                                             \
        write_pool_label(t, s, r);                                                                                     \
        text_add(t, " %zu\n", r->field);                                                                               \
    }
    ROW_FIELDS(FIELD)
#undef FIELD
}

bool stats_write(const view *v, const pm_stats *s, stats_format format, int fd)
{
    text t;
    text_open(&t, fd);
    if (format == FORMAT_JSON)
        write_json(&t, v, s);
    else if (format == FORMAT_PROMETHEUS)
        write_prometheus(&t, v, s);
    else
        write_text(&t, v, s);
    text_flush(&t);
    return !t.failed;
}
