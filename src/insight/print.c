/* print.c: See print.h. */
#include "insight/print.h"

#include "ground/text.h"

#include <stdio.h>
#include <string.h>

#define SCHEMA 1 /* of the JSON document: counts up when a field's meaning changes, or one goes */

typedef enum { ALWAYS, COUNTED, PEAK } known; /* COUNTED: with STATS=full, for malloc's rows; PEAK: explicit pools' too */

/* A figure: its name in pm_stats and JSON, in Prometheus, whether it only ever grows, what it is. Arrays, not pointers, which the
 * loader would have to set at every program's start. */
typedef struct figure {
    char name[24], metric[32], type[8], help[76];
    uint16_t offset;
    uint8_t known;
} figure;

#define TOTAL(field, metric, type, help, known) {#field, metric, type, help, offsetof(pm_stats, field), known}
static const figure totals[] = {
    TOTAL(reserved_bytes, "reserved_bytes", "gauge", "Address space mapped for the pools.", ALWAYS),
    TOTAL(committed_bytes, "committed_bytes", "gauge", "Pages of slabs once used, records, heaps: what POOLMALLOC_LIMIT bounds.", ALWAYS),
    TOTAL(resident_bytes, "resident_bytes", "gauge", "Slab memory that is resident.", ALWAYS),
    TOTAL(used_bytes, "used_bytes", "gauge", "Blocks in the program's hands.", ALWAYS),
    TOTAL(forwarded_calls, "forwarded_calls_total", "counter", "Allocations handed to the next allocator.", ALWAYS),
    TOTAL(forwarded_small_calls, "forwarded_small_calls_total", "counter", "Those of them for want of pool memory.", ALWAYS),
    TOTAL(kept_bytes, "kept_bytes", "gauge", "Blocks of the next allocator, freed and at hand.", ALWAYS),
    TOTAL(pool_calls, "pool_calls_total", "counter", "Allocations served by pools (with POOLMALLOC_STATS=full).", COUNTED),
    TOTAL(heaps, "heaps", "gauge", "Heaps made.", ALWAYS),
    TOTAL(idle_heaps, "idle_heaps", "gauge", "Heaps without a thread.", ALWAYS),
    TOTAL(spare_slabs, "spare_slabs", "gauge", "Empty slabs kept by heaps.", ALWAYS),
    TOTAL(empty_slabs, "empty_slabs", "gauge", "Empty slabs that hold pages and belong to no heap.", ALWAYS),
    TOTAL(purged_slabs, "purged_slabs", "gauge", "Empty slabs that hold no pages.", ALWAYS),
    TOTAL(purges, "purges_total", "counter", "Slabs whose pages went back to the system.", ALWAYS),
    TOTAL(demoted_pools, "demoted_pools_total", "counter", "Pools of THREADS that became LOCKED: all bin numbers were taken.", ALWAYS),
    TOTAL(explicit_pools, "explicit_pools", "gauge", "Pools made by the program itself.", ALWAYS),
    TOTAL(limit_hits, "limit_hits_total", "counter", "Slabs refused by POOLMALLOC_LIMIT.", ALWAYS),
    TOTAL(remote_frees, "remote_frees_total", "counter", "Blocks sent home to another thread's heap.", ALWAYS),
    TOTAL(remote_messages, "remote_messages_total", "counter", "Runs in which they went, each of one slab.", ALWAYS),
    TOTAL(busy, "busy_heaps", "gauge", "Heaps whose thread allocated meanwhile: 0 means exact.", ALWAYS),
};

#define OF_ROW(field, metric, type, help, known) {#field, metric, type, help, offsetof(pm_stats_row, field), known}
static const figure row_figures[] = {
    OF_ROW(block_size, "block_size_bytes", "gauge", "Bytes of a block.", ALWAYS),
    OF_ROW(slabs, "slabs", "gauge", "Slabs that hold blocks.", ALWAYS),
    OF_ROW(capacity, "capacity_blocks", "gauge", "Blocks that these slabs have room for.", ALWAYS),
    OF_ROW(used, "used_blocks", "gauge", "Blocks in the program's hands.", ALWAYS),
    OF_ROW(free, "free_blocks", "gauge", "Capacity less used.", ALWAYS),
    OF_ROW(resident_bytes, "pool_resident_bytes", "gauge", "Bytes of these slabs in memory.", ALWAYS),
    OF_ROW(waiting_slabs, "waiting_slabs", "gauge", "Pre-allocated slabs not in use yet.", ALWAYS),
    OF_ROW(slab_tail_bytes, "slab_tail_bytes", "gauge", "Bytes of these slabs too few for one more block.", ALWAYS),
    OF_ROW(learned, "learned", "gauge", "Whether the block size was learned from the program's requests (1).", ALWAYS),
    OF_ROW(allocations, "allocations_total", "counter", "Allocations served (with POOLMALLOC_STATS=full).", COUNTED),
    OF_ROW(peak, "peak_blocks", "gauge", "Most blocks in use at once (malloc's: with POOLMALLOC_STATS=full).", PEAK),
};

#define END_OF(array) (array + sizeof array / sizeof *array)

static size_t figure_of(const figure *f, const void *in)
{
    size_t n;
    memcpy(&n, (const char *)in + f->offset, sizeof n);
    return n;
}

/* ---- rows ---- */

/* What a row's writer needs beside the row. pool: NULL for malloc's and the arenas'. */
typedef struct row_sink row_sink;
struct row_sink {
    void (*write)(row_sink *to, const pm_stats_row *r, const pool_row *pool);
    text *t;
    const view *v;
    const figure *f; /* Prometheus: */
    bool begun;      /* a series of it is written */
    const char *comma;
    int width;
};

static void pool_pass(const pool_row *r, void *context)
{
    row_sink *to = context;
    to->write(to, &r->row, r);
}

/* Malloc's and the arenas', which have no blocks. */
static size_t rows_plain(const view *v, const pm_stats *s)
{
    size_t n = size_min(v->class_count, s->pools);
    return n < s->pools && s->row[n].block_size == 0 ? n + 1 : n;
}

/* However many pools there are: each is told as it is met. */
static void rows_write(const pm_stats *s, row_sink *to)
{
    for (size_t i = 0, n = rows_plain(to->v, s); i < n; i++)
        to->write(to, &s->row[i], NULL);
    stats_pools(to->v, pool_pass, to);
}

static bool row_knows(const row_sink *to, const figure *f, const pool_row *pool)
{
    return f->known == ALWAYS || (pool ? f->known == PEAK : to->v->counted);
}

/* ---- strings ---- */

/* Names are fit to be shown; what JSON and Prometheus need beyond that is the same. */
static void write_string(text *t, const char *from)
{
    text_add(t, "\"");
    for (; *from; from++)
        text_add(t, *from == '"' || *from == '\\' ? "\\%c" : "%c", *from);
    text_add(t, "\"");
}

/* ---- text ---- */

static const char *say(const view *v, size_t bytes, bool column, char to[24])
{
    if (v->say)
        return v->say(bytes, column, to);
    snprintf(to, 24, "%zu", bytes);
    return to;
}
#define COLUMN(v, bytes) say(v, bytes, true, (char[24]){0})
#define SAID(v, bytes) say(v, bytes, false, (char[24]){0})

/* A block size of malloc's that is not in use is not shown. */
static bool row_shows(const pm_stats_row *r, const pool_row *pool)
{
    return pool || r->slabs + r->waiting_slabs + r->allocations > 0;
}

static void width_note(row_sink *to, const pm_stats_row *r, const pool_row *pool)
{
    to->width = row_shows(r, pool) ? (int)size_max((size_t)to->width, strlen(r->name)) : to->width;
}

static void write_text_row(row_sink *to, const pm_stats_row *r, const pool_row *pool)
{
    text *t = to->t;
    double use = r->capacity ? 100.0 * (double)r->used / (double)r->capacity : 0;
    if (!row_shows(r, pool))
        return;
    text_add(t, "%-*s %10zu %7zu %10zu %10zu %10zu %6.1f %10s %12s", to->width, r->name, r->block_size,
             r->slabs + r->waiting_slabs, r->capacity, r->used, r->free, use, COLUMN(to->v, r->slab_tail_bytes),
             COLUMN(to->v, r->resident_bytes));
    if (to->v->counted && !pool)
        text_add(t, " %12zu %10zu", r->allocations, r->peak);
    text_add(t, r->learned ? "  learned\n" : "\n");
}

static void write_text_rows(text *t, const view *v, const pm_stats *s)
{
    view names = *v;
    names.resident = NULL;
    row_sink width = {.write = width_note, .v = &names, .width = sizeof "malloc-32768" - 1};
    rows_write(s, &width);
    row_sink to = {.write = write_text_row, .t = t, .v = v, .width = width.width};
    text_add(t, "%-*s %10s %7s %10s %10s %10s %6s %10s %12s", to.width, "pool", "block size", "slabs", "capacity", "used", "free",
             "use %", "tail waste", "resident");
    text_add(t, v->counted ? " %12s %10s\n" : "\n", "allocations", "peak");
    rows_write(s, &to);
}

#define HEAP_LINES 32

static void write_text_heaps(text *t, const view *v)
{
    heap_stats h;
    uint32_t lines = 0;
    for (uint32_t i = 0; i < v->heap_count; i++) {
        if (!stats_heap(v, i, &h) || (!h.live && h.hand_bytes + h.way_blocks == 0) || lines++ >= HEAP_LINES)
            continue;
        text_add(t, "heap %-5u %s: %s%s at hand, %zu blocks on their way\n", i, h.live ? "live" : "idle", SAID(v, h.hand_bytes),
                 v->say ? "" : " bytes", h.way_blocks);
    }
    if (lines > HEAP_LINES)
        text_add(t, "and %u heaps more\n", lines - HEAP_LINES);
}

/* Its sizes in words are no part of the frame of other formats. */
static NOINLINE void write_text(text *t, const view *v, const pm_stats *s)
{
    text_add(t, "%s, process %u, next allocator %s%s\n", v->title ? v->title : "poolmalloc " PM_VERSION, v->pid, v->next,
             v->say ? "" : "; all sizes in bytes");
    write_text_rows(t, v, s);
    if (v->ready)
        write_text_heaps(t, v);
    text_add(t, "in use %s, resident %s, committed %s, address space %s\n", SAID(v, s->used_bytes), SAID(v, s->resident_bytes),
             SAID(v, s->committed_bytes), SAID(v, s->reserved_bytes));
    text_add(t, "forwarded calls %zu (for want of pool memory %zu), freed blocks of theirs at hand %s, served by pools ",
             s->forwarded_calls, s->forwarded_small_calls, SAID(v, s->kept_bytes));
    text_add(t, v->counted ? "%zu\n" : "not counted (POOLMALLOC_STATS=full counts)\n", s->pool_calls);
    text_add(t, "heaps %zu (idle %zu, busy %zu), spare slabs %zu, empty %zu, purged %zu (so far %zu), limit hits %zu; ",
             s->heaps, s->idle_heaps, s->busy, s->spare_slabs, s->empty_slabs, s->purged_slabs, s->purges, s->limit_hits);
    text_add(t, "remote frees %zu in %zu messages\n", s->remote_frees, s->remote_messages);
}

/* ---- JSON ---- */

static void write_json_figure(text *t, const char *comma, const figure *f, const void *in, bool is_known)
{
    text_add(t, is_known ? "%s\"%s\": %zu" : "%s\"%s\": null", comma, f->name, figure_of(f, in));
}

static void write_json_row(row_sink *to, const pm_stats_row *r, const pool_row *pool)
{
    text_add(to->t, "%s{\"name\": ", to->comma);
    write_string(to->t, r->name);
    if (pool)
        text_add(to->t, ", \"number\": %u", pool->number);
    for (const figure *f = row_figures; f < END_OF(row_figures); f++)
        write_json_figure(to->t, ", ", f, r, row_knows(to, f, pool));
    text_add(to->t, "}");
    to->comma = ", ";
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
    row_sink to = {.write = write_json_row, .t = t, .v = v, .comma = ""};
    text_add(t, "{\"version\": \"" PM_VERSION "\", \"schema\": %d, \"pid\": %u, \"next\": ", SCHEMA, v->pid);
    write_string(t, v->next);
    text_add(t, ", \"pools\": [");
    rows_write(s, &to);
    text_add(t, "]");
    write_json_heaps(t, v);
    text_add(t, ", \"totals\": {");
    for (const figure *f = totals; f < END_OF(totals); f++)
        write_json_figure(t, f > totals ? ", " : "", f, s, f->known == ALWAYS || v->counted);
    text_add(t, "}}\n");
}

/* ---- Prometheus ---- */

static void write_metric(text *t, const figure *f)
{
    text_add(t, "# HELP poolmalloc_%s %s\n# TYPE poolmalloc_%s %s\n", f->metric, f->help, f->metric, f->type);
}

/* A series needs labels that no other has, and that stay. */
static void write_series(row_sink *to, const pm_stats_row *r, const pool_row *pool)
{
    text *t = to->t;
    if (!row_knows(to, to->f, pool))
        return;
    if (!to->begun)
        write_metric(t, to->f);
    to->begun = true;
    text_add(t, "poolmalloc_%s{pool=", to->f->metric);
    write_string(t, r->name); /* the same escapes */
    if (pool && pool->twin)
        text_add(t, ",number=\"%u\"", pool->number);
    text_add(t, "} %zu\n", figure_of(to->f, r));
}

static void write_row_metric(text *t, const view *v, const pm_stats *s, const figure *f)
{
    view some = *v;
    some.resident = f->offset == offsetof(pm_stats_row, resident_bytes) ? v->resident : NULL;
    row_sink to = {.write = write_series, .t = t, .v = &some, .f = f};
    rows_write(s, &to);
}

static void write_prometheus(text *t, const view *v, const pm_stats *s)
{
    text_add(t, "# HELP poolmalloc_info Version, process and next allocator.\n# TYPE poolmalloc_info gauge\n");
    text_add(t, "poolmalloc_info{version=\"" PM_VERSION "\",pid=\"%u\",next=", v->pid);
    write_string(t, v->next);
    text_add(t, "} 1\n");
    for (const figure *f = totals; f < END_OF(totals); f++)
        if (f->known == ALWAYS || v->counted) {
            write_metric(t, f);
            text_add(t, "poolmalloc_%s %zu\n", f->metric, figure_of(f, s));
        }
    for (const figure *f = row_figures; f < END_OF(row_figures); f++)
        write_row_metric(t, v, s, f);
}

bool stats_write(const view *v, const pm_stats *s, stats_format format, int fd)
{
    text t = {.fd = fd};
    if (format == FORMAT_JSON)
        write_json(&t, v, s);
    else if (format == FORMAT_PROMETHEUS)
        write_prometheus(&t, v, s);
    else
        write_text(&t, v, s);
    text_flush(&t);
    return !t.failed;
}
