/* stats.c: layer 13. See stats.h.
 *   used of a pool = what its slabs have out - what lies in bins - what is on its way between heaps. */
#include "stats.h"

#include "alloc.h"
#include "depot.h"
#include "os.h"
#include "registry.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

uint64_t pm_forwarded_elsewhere;
const char *pm_next_name = "none";

/* Another thread's list, read while it may change: every step is checked, the number of steps bounded. */
static PEEKS void chain_subtract(const block *p, pm_stats *s, size_t most)
{
    for (; most > 0 && p && region_holds(p); most--, p = p->next) {
        unsigned klass = slab_of(p)->klass;
        if (klass < pm_class_count && s->row[klass].used > 0)
            s->row[klass].used--;
    }
}

static PEEKS void messages_subtract(const block *m, pm_stats *s)
{
    for (size_t n = 0; n < 1u << 20 && m && region_holds(m); n++, m = m->next_message)
        chain_subtract(m, s, OUTBOX_BLOCKS);
}

static PEEKS void heap_subtract(const heap *h, pm_stats *s)
{
    for (unsigned c = 0; c < pm_class_count; c++) {
        int32_t held = h->bins[c].limit - h->bins[c].room;
        s->row[c].used -= size_min(s->row[c].used, held > 0 ? (size_t)held : 0);
    }
    for (unsigned i = 0; i < OUTBOXES; i++)
        chain_subtract(h->out[i].chain, s, h->out[i].count);
    messages_subtract(h->inbox, s);
    messages_subtract(h->pending, s);
    s->forwarded_calls += h->forwarded + h->overflowed;
    s->forwarded_small_calls += h->overflowed;
    s->remote_frees += h->blocks_sent;
    s->remote_messages += h->messages_sent;
    s->idle_heaps += h->state == HEAP_IDLE;
    s->heaps++;
}

static PEEKS void slab_add(const slab *b, pm_stats *s)
{
    if (!slab_in_use(b) || b->klass >= pm_class_count)
        return;
    if (b->out == 0) {
        s->spare_slabs++;
        return;
    }
    pm_stats_row *row = &s->row[b->klass];
    row->slabs++;
    row->capacity += pm_classes[b->klass].per_slab;
    row->used += b->out;
    row->resident_bytes += os_resident(slab_memory(b), SLAB_SIZE);
}

static void rows_begin(pm_stats *s)
{
    s->pools = pm_class_count;
    for (unsigned c = 0; c < pm_class_count; c++) {
        pm_stats_row *row = &s->row[c];
        row->block_size = pm_classes[c].size;
        row->waiting_slabs = pm_classes[c].waiting_count;
        row->capacity = row->waiting_slabs * pm_classes[c].per_slab;
        row->allocations = LOAD(&pm_class_counts[c].allocations);
        row->peak = LOAD(&pm_class_counts[c].peak);
        snprintf(row->name, sizeof row->name, "malloc-%zu", row->block_size);
    }
}

static void rows_end(pm_stats *s)
{
    for (pm_stats_row *row = s->row; row < s->row + s->pools; row++) {
        row->free = row->capacity - size_min(row->used, row->capacity);
        s->used_bytes += row->used * row->block_size;
        s->pool_calls += row->allocations;
    }
}

PEEKS void stats_gather(pm_stats *s)
{
    const depot *d = &pm_depot;
    memset(s, 0, sizeof *s);
    s->struct_size = sizeof *s;
    s->forwarded_calls = LOAD(&pm_forwarded_elsewhere);
    if (!pm_pools_ready)
        return;
    rows_begin(s);
    for (size_t i = 0, n = LOAD(&d->fresh); i < n; i++)
        slab_add(&pm_region.slabs[i], s);
    for (uint32_t i = 0, n = LOAD(&pm_registry.count); i < n; i++)
        heap_subtract(registry_heap(i), s);
    rows_end(s);
    s->reserved_bytes = pm_region.blocks.size + pm_region.records.size + pm_region.heaps.size;
    s->committed_bytes = d->holding * SLAB_SIZE + d->fresh * sizeof(slab) + pm_region.heaps.size;
    s->resident_bytes = os_resident(pm_region.blocks.base, d->fresh * SLAB_SIZE);
    s->empty_slabs = d->dirty.count + d->broken.count + d->whole.count * UNIT_SLABS;
    s->purges = d->purges;
    s->limit_hits = d->limit_hits;
}

/* ---- formats ---- */

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
    X(purges, "purged_slabs_total", "counter", "Slabs whose pages went back to the system.")                           \
    X(limit_hits, "limit_hits_total", "counter", "Slabs refused by POOLMALLOC_LIMIT.")                                 \
    X(remote_frees, "remote_frees_total", "counter", "Blocks sent home to another thread's heap.")                     \
    X(remote_messages, "remote_messages_total", "counter", "Messages that carried them.")

#define ROW_FIELDS(X)                                                                                                  \
    X(block_size, "block_size_bytes", "gauge", "Bytes of a block.")                                                    \
    X(slabs, "slabs", "gauge", "Slabs that hold blocks.")                                                              \
    X(capacity, "capacity_blocks", "gauge", "Blocks that these slabs have room for.")                                  \
    X(used, "used_blocks", "gauge", "Blocks in the program's hands.")                                                  \
    X(free, "free_blocks", "gauge", "Capacity less used.")                                                             \
    X(resident_bytes, "pool_resident_bytes", "gauge", "Bytes of these slabs in memory.")                               \
    X(waiting_slabs, "waiting_slabs", "gauge", "Pre-allocated slabs not in use yet.")                                  \
    X(allocations, "allocations_total", "counter", "Allocations served (with POOLMALLOC_STATS=full).")                 \
    X(peak, "peak_blocks", "gauge", "Most blocks in use at once (with POOLMALLOC_STATS=full).")

static void write_text(text *t, const pm_stats *s, uint32_t pid, const char *next)
{
    text_add(t, "poolmalloc " PM_VERSION ", process %u, next allocator %s; all sizes in bytes\n", pid, next);
    text_add(t, "%10s %8s %10s %10s %10s %6s %14s", "block size", "slabs", "capacity", "used", "free", "use", "resident");
    text_add(t, s->pool_calls ? " %12s %10s\n" : "\n", "allocations", "peak");
    for (const pm_stats_row *r = s->row; r < s->row + s->pools; r++) {
        if (r->slabs + r->waiting_slabs + r->allocations == 0)
            continue;
        double use = r->capacity ? 100.0 * (double)r->used / (double)r->capacity : 0;
        text_add(t, "%10zu %8zu %10zu %10zu %10zu %5.1f%% %14zu", r->block_size, r->slabs + r->waiting_slabs, r->capacity,
                 r->used, r->free, use, r->resident_bytes);
        text_add(t, s->pool_calls ? " %12zu %10zu\n" : "\n", r->allocations, r->peak);
    }
    text_add(t, "in use %zu, resident %zu, committed %zu, address space %zu\n", s->used_bytes, s->resident_bytes,
             s->committed_bytes, s->reserved_bytes);
    text_add(t, "forwarded calls %zu (for want of pool memory %zu), served by pools ", s->forwarded_calls,
             s->forwarded_small_calls);
    text_add(t, s->pool_calls ? "%zu\n" : "not counted (POOLMALLOC_STATS=full counts)\n", s->pool_calls);
    text_add(t, "heaps %zu (idle %zu), spare slabs %zu, empty %zu, purged %zu, limit hits %zu; remote frees %zu in %zu messages\n",
             s->heaps, s->idle_heaps, s->spare_slabs, s->empty_slabs, s->purges, s->limit_hits, s->remote_frees,
             s->remote_messages);
}

static void write_json_string(text *t, const char *from)
{
    text_add(t, "\"");
    for (; *from; from++)
        text_add(t, *from == '"' || *from == '\\' ? "\\%c" : (unsigned char)*from < 32 ? "\\u%04x" : "%c", *from);
    text_add(t, "\"");
}

static void write_json(text *t, const pm_stats *s, uint32_t pid, const char *next)
{
    text_add(t, "{\"version\": \"" PM_VERSION "\", \"pid\": %u, \"next\": ", pid);
    write_json_string(t, next);
    text_add(t, ", \"pools\": [");
    for (const pm_stats_row *r = s->row; r < s->row + s->pools; r++) {
        text_add(t, "%s{\"name\": ", r > s->row ? ", " : "");
        write_json_string(t, r->name);
#define FIELD(field, name, kind, help) text_add(t, ", \"" #field "\": %zu", r->field);
        ROW_FIELDS(FIELD)
#undef FIELD
        text_add(t, "}");
    }
    const char *comma = "";
    text_add(t, "], \"totals\": {");
#define FIELD(field, name, kind, help)                                                                                 \
    text_add(t, "%s\"" #field "\": %zu", comma, s->field);                                                             \
    comma = ", ";
    TOTALS(FIELD)
#undef FIELD
    text_add(t, "}}\n");
}

static void write_prometheus(text *t, const pm_stats *s, uint32_t pid, const char *next)
{
    text_add(t, "# HELP poolmalloc_info Version, process and next allocator.\n# TYPE poolmalloc_info gauge\n");
    text_add(t, "poolmalloc_info{version=\"" PM_VERSION "\",pid=\"%u\",next=", pid);
    write_json_string(t, next); /* the same escapes */
    text_add(t, "} 1\n");
#define FIELD(field, metric, kind, help)                                                                                 \
    text_add(t, "# HELP poolmalloc_" metric " " help "\n# TYPE poolmalloc_" metric " " kind "\npoolmalloc_" metric " %zu\n", \
             s->field);
    TOTALS(FIELD)
#undef FIELD
#define FIELD(field, metric, kind, help)                                                                                 \
    text_add(t, "# HELP poolmalloc_" metric " " help "\n# TYPE poolmalloc_" metric " " kind "\n");                         \
    for (const pm_stats_row *r = s->row; r < s->row + s->pools; r++) {                                                 \
        text_add(t, "poolmalloc_" metric "{pool=");                                                                      \
        write_json_string(t, r->name);                                                                                 \
        text_add(t, "} %zu\n", r->field);                                                                              \
    }
    ROW_FIELDS(FIELD)
#undef FIELD
}

bool stats_write(const pm_stats *s, uint32_t pid, const char *next, stats_format format, int fd)
{
    text t;
    text_open(&t, fd);
    if (format == FORMAT_JSON)
        write_json(&t, s, pid, next);
    else if (format == FORMAT_PROMETHEUS)
        write_prometheus(&t, s, pid, next);
    else
        write_text(&t, s, pid, next);
    text_flush(&t);
    return !t.failed;
}

/* ---- reports ---- */

static int report_open(void)
{
    char path[300];
    if (!*pm_config.stats_file)
        return 2;
    int fd = -ENAMETOOLONG;
    if (path_expand(pm_config.stats_file, path, sizeof path))
        fd = os_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        report("POOLMALLOC_STATS_FILE: '%s' cannot be opened (error %d); nothing is written", pm_config.stats_file, -fd);
    return fd;
}

/* One report at a time, report_lock held; from a buffer of its own: the caller's stack may be a signal's. */
static os_lock report_lock;
static pm_stats report_stats;

static bool report_write(int fd, stats_format format)
{
    stats_gather(&report_stats);
    return stats_write(&report_stats, os_pid(), pm_next_name, format, fd);
}

bool stats_report_to(int fd, stats_format format)
{
    os_lock_take(&report_lock);
    bool written = report_write(fd, format);
    os_lock_give(&report_lock);
    return written;
}

void stats_report(void)
{
    int fd = report_open();
    if (fd < 0 || (fd == 2 && !pm_stderr_open))
        return;
    if (os_lock_try(&report_lock)) { /* held: the signal has come while this thread writes one, or another does */
        report_write(fd, pm_config.stats_format);
        os_lock_give(&report_lock);
    }
    if (fd > 2)
        os_close(fd);
}
