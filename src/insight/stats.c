/* stats.c: See stats.h.
 *   used of a malloc pool = what its slabs have out, less what came back from others - what lies in bins - what is in runs.
 *   used of an explicit pool = what its slabs have out - what lies in its bins.
 * Everything read may change meanwhile, or be nonsense: every index is checked, every walk bounded. */
#include "insight/stats.h"

#include "ground/config.h"
#include "ground/os.h"
#include "ground/text.h"
#include "pools/slab.h"

#include <stdio.h>
#include <string.h>

/* ---- the view ---- */

static PEEKS bool peek_here(const view *v, const void *from, void *to, size_t bytes)
{
    (void)v;
    if ((uintptr_t)from % 8 != 0 || !region_holds(from) || !region_holds((const char *)from + bytes - 1))
        return false;
    const volatile uint64_t *words = from;
    for (size_t i = 0; i < bytes / 8; i++)
        ((uint64_t *)to)[i] = words[i];
    return true;
}

static size_t resident_here(const view *v, size_t from, size_t count)
{
    return os_resident(slab_memory(v->slabs + from), count * SLAB_SIZE);
}

static size_t view_resident(const view *v, size_t from, size_t count) { return v->resident ? v->resident(v, from, count) : 0; }

static const heap *view_heap(const view *v, uint32_t i)
{
    return v->heaps ? (const heap *)(v->heaps + i * v->heap_stride) : registry_heap(i);
}

PEEKS void view_here(view *v, uint64_t *slow)
{
    *v = (view){
        .ready = pm_pools_ready,
        .region = &pm_region,
        .slabs = pm_region.slabs,
        .slab_count = LOAD(&pm_depot.fresh),
        .heap_count = LOAD(&pm_registry.count),
        .slow = slow,
        .classes = pm_classes,
        .class_count = classes_count(),
        .class_fixed = pm_class_fixed,
        .counts = pm_class_counts,
        .counted = pm_config.stats.full,
        .depot = &pm_depot,
        .shared = &pm_shared,
        .pools = &pm_pools,
        .pool_home = HEAP_POOL,
        .nobody = HEAP_NOBODY,
        .forwarded = LOAD(&pm_forwarded_elsewhere),
        .next = pm_next_name,
        .pid = os_pid(),
        .peek = peek_here,
        .resident = resident_here,
    };
    v->watched = v->heap_count < HEAPS_WATCHED ? v->heap_count : HEAPS_WATCHED;
    for (uint32_t i = 0; i < v->watched; i++)
        slow[i] = LOAD(&view_heap(v, i)->slow);
}

/* The record that a link of the process leads to, or NULL. */
static const slab *view_slab_at(const view *v, const slab *there)
{
    size_t offset = (uintptr_t)there - (uintptr_t)v->region->slabs;
    return offset % sizeof(slab) == 0 && offset / sizeof(slab) < v->slab_count ? v->slabs + offset / sizeof(slab) : NULL;
}

/* ---- heaps ---- */

static PEEKS size_t bin_held(const bin *b)
{
    int32_t held = b->limit - b->room;
    return held > 0 ? (size_t)held : 0;
}

static size_t less(size_t from, size_t n) { return from - size_min(from, n); }

static PEEKS size_t kept_bytes(const kept_bins *k)
{
    size_t bytes = 0;
    for (unsigned c = 0; c < KEPT_BINS; c++) {
        int n = k->bin[c].limit - k->bin[c].room - k->bin[c].taken;
        bytes += n > 0 ? (size_t)n * kept_size(c) : 0;
    }
    return bytes;
}

/* Blocks in its runs: on their way to other heaps' slabs. */
static PEEKS size_t heap_runs(const view *v, const heap *h, pm_stats *s)
{
    size_t blocks = 0;
    for (const block_run *r = h->runs[0]; r < h->runs[0] + RUNS; r++) {
        const slab *b = r->slab ? view_slab_at(v, r->slab) : NULL;
        size_t n = b && b->klass < v->class_count ? r->count : 0;
        blocks += n;
        if (s && n)
            s->row[b->klass].used = less(s->row[b->klass].used, n);
    }
    return blocks;
}

static PEEKS void heap_subtract(const view *v, const heap *h, pm_stats *s)
{
    for (unsigned c = 0; c < v->class_count; c++)
        s->row[c].used = less(s->row[c].used, bin_held(&h->bins[c]));
    heap_runs(v, h, s);
    s->forwarded_calls += h->forwarded;
    s->forwarded_small_calls += h->overflowed;
    s->kept_bytes += kept_bytes(&h->kept);
    s->remote_frees += h->blocks_sent;
    s->remote_messages += h->runs_sent;
    s->idle_heaps += h->state == HEAP_IDLE;
    s->heaps++;
}

PEEKS size_t view_busy(const view *v)
{
    size_t busy = 0;
    for (uint32_t i = 0; i < v->watched; i++)
        busy += v->slow[i] % 2 != 0 || LOAD(&view_heap(v, i)->slow) != v->slow[i];
    return busy;
}

static uint32_t pool_bins_count(const view *v) { return (uint32_t)size_min(LOAD(&v->pools->bins), POOL_BINS); }

static PEEKS size_t pool_bins_bytes(const view *v, const heap *h)
{
    size_t bytes = 0;
    pm_pool pool;
    for (uint32_t i = 0, n = pool_bins_count(v); i < n; i++) {
        size_t held = bin_held(&h->pool_bins[i]);
        if (held > 0 && v->peek(v, v->pools->of_bin[i], &pool, sizeof pool))
            bytes += held * pool.shape.size;
    }
    return bytes;
}

PEEKS bool stats_heap(const view *v, uint32_t number, heap_stats *to)
{
    const heap *h = view_heap(v, number);
    if (h->state == HEAP_UNUSED)
        return false;
    *to = (heap_stats){h->state == HEAP_LIVE, pool_bins_bytes(v, h), heap_runs(v, h, NULL)};
    for (unsigned c = 0; c < v->class_count; c++)
        to->hand_bytes += bin_held(&h->bins[c]) * v->classes[c].size;
    return true;
}

/* ---- slabs ---- */

static void row_add_slab(const view *v, pm_stats_row *row, const slab *b)
{
    row->slabs++;
    row->resident_bytes += view_resident(v, (size_t)(b - v->slabs), 1);
}

/* All arenas, and the records of pools and arenas: one row behind malloc's. */
static pm_stats_row *arenas_row(const view *v, pm_stats *s)
{
    pm_stats_row *row = &s->row[v->class_count];
    if (s->pools == v->class_count) {
        s->pools++;
        memcpy(row->name, "arenas", sizeof "arenas");
    }
    return row;
}

static PEEKS void slab_add(const view *v, const slab *b, pm_stats *s)
{
    if (!slab_in_use(b))
        return;
    if (b->home == v->pool_home) {
        if (!b->pool)
            row_add_slab(v, arenas_row(v, s), b);
        return;
    }
    if (b->home == v->nobody) {
        s->spare_slabs++;
        return;
    }
    if (b->klass >= v->class_count)
        return;
    pm_stats_row *row = &s->row[b->klass];
    row_add_slab(v, row, b);
    row->capacity += v->classes[b->klass].per_slab;
    row->used += less(slab_out(b), remote_count(LOAD(&b->remote)) + b->back);
}

/* ---- explicit pools ---- */

static PEEKS size_t pool_held(const view *v, const pm_pool *pool)
{
    size_t held = bin_held(&pool->own) + bin_held(&pool->hand), number = (pool->bin_offset - offsetof(heap, pool_bins)) / BIN_SIZE;
    if (pool->sharing != PM_SHARING_THREADS || number >= pool_bins_count(v))
        return held;
    for (uint32_t i = 0; i < v->heap_count; i++)
        held += bin_held(&view_heap(v, i)->pool_bins[number]);
    return held;
}

static PEEKS size_t pool_resident(const view *v, const pm_pool *pool)
{
    size_t bytes = 0, n = pool->slabs.count;
    for (const slab *b = view_slab_at(v, pool->slabs.first); b && n > 0; b = view_slab_at(v, b->next), n--)
        bytes += view_resident(v, (size_t)(b - v->slabs), 1);
    return bytes;
}

static void row_end(pm_stats_row *row)
{
    row->free = less(row->capacity, row->used);
    if (row->block_size > 0)
        row->slab_tail_bytes = less((row->slabs + row->waiting_slabs) * SLAB_SIZE, row->capacity * row->block_size);
}

static void pool_tell(const view *v, const pm_pool *pool, pool_row *to)
{
    pm_stats_row *row = &to->row;
    *to = (pool_row){.number = pool->number, .twin = pool->twin};
    name_clean(pool->name, row->name, sizeof row->name); /* the record may be something else's by now */
    row->block_size = pool->shape.size;
    row->slabs = pool->slabs.count;
    row->capacity = row->slabs * pool->shape.per_slab + pool->piece_blocks;
    row->used = less(pool->out, pool_held(v, pool));
    row->peak = size_max(pool->peak, row->used);
    row->resident_bytes = v->resident ? pool_resident(v, pool) : 0;
    row_end(row);
}

/* A record may be given back and hold something else while we come to it: the links stay within the region all the same. */
PEEKS void stats_pools(const view *v, void (*each)(const pool_row *r, void *context), void *context)
{
    pm_pool pool;
    pool_row row;
    size_t n = v->ready ? LOAD(&v->pools->count) : 0;
    for (const pm_pool *p = n ? LOAD(&v->pools->first) : NULL; n > 0 && v->peek(v, p, &pool, sizeof pool); n--, p = pool.next) {
        pool.name[sizeof pool.name - 1] = 0;
        if (pool.shape.size - 1 >= BLOCK_MAX || pool.slabs.count > LOAD(&v->depot->fresh)) /* more by now than slab_count */
            continue;
        pool_tell(v, &pool, &row);
        each(&row, context);
    }
}

static void pool_add_totals(const pool_row *r, void *context)
{
    pm_stats *s = context;
    s->used_bytes += r->row.used * r->row.block_size;
    s->explicit_pools++;
}

typedef struct pools_rows {
    pm_stats *s;
    size_t left, rest; /* rows to come; pools in the last one */
} pools_rows;

static void rest_add(pm_stats_row *to, const pm_stats_row *r, size_t pools)
{
    snprintf(to->name, sizeof to->name, "%zu pools more", pools);
    to->block_size = 1;
    to->slabs += r->slabs;
    to->capacity += r->capacity * r->block_size;
    to->used += r->used * r->block_size;
    to->free = to->capacity - to->used;
    to->resident_bytes += r->resident_bytes;
    to->slab_tail_bytes += r->slab_tail_bytes;
}

static void pool_add_row(const pool_row *r, void *context)
{
    pools_rows *rows = context;
    pm_stats *s = rows->s;
    size_t room = PM_STATS_ROWS - s->pools;
    if (rows->rest == 0 && (room > 1 || rows->left <= 1)) {
        if (room > 0)
            s->row[s->pools++] = r->row;
    } else
        rest_add(&s->row[PM_STATS_ROWS - 1], &r->row, ++rows->rest);
    rows->left -= rows->left > 0;
}

static void pools_add(const view *v, pm_stats *s)
{
    pools_rows rows = {s, s->explicit_pools, 0};
    stats_pools(v, pool_add_row, &rows);
    s->pools += rows.rest > 0;
}

/* ---- all of it ---- */

static PEEKS void rows_begin(const view *v, pm_stats *s)
{
    s->pools = v->class_count;
    for (unsigned c = 0; c < v->class_count; c++) {
        pm_stats_row *row = &s->row[c];
        row->block_size = LOAD(&v->classes[c].size);
        row->learned = c >= v->class_fixed;
        row->waiting_slabs = v->classes[c].waiting_count;
        row->capacity = row->waiting_slabs * v->classes[c].per_slab;
        row->allocations = LOAD(&v->counts[c].allocations);
        row->peak = LOAD(&v->counts[c].peak);
        snprintf(row->name, sizeof row->name, "malloc-%zu", row->block_size);
    }
}

/* What was learned comes behind what is fixed. */
static void rows_sort(pm_stats_row *rows, size_t count)
{
    for (size_t i = 1; i < count; i++)
        for (size_t k = i; k > 0 && rows[k].block_size < rows[k - 1].block_size; k--) {
            pm_stats_row row = rows[k];
            rows[k] = rows[k - 1];
            rows[k - 1] = row;
        }
}

static void rows_end(const view *v, pm_stats *s)
{
    for (unsigned c = 0; c < v->class_count; c++) {
        s->used_bytes += s->row[c].used * s->row[c].block_size;
        s->pool_calls += s->row[c].allocations;
    }
    rows_sort(s->row, v->class_count);
    for (pm_stats_row *row = s->row; row < s->row + s->pools; row++)
        row_end(row);
}

static PEEKS void depot_add(const view *v, pm_stats *s)
{
    const depot *d = v->depot;
    const region *r = v->region;
    s->reserved_bytes = r->blocks.size + r->records.size + r->free_bits.size + r->heaps.size;
    s->committed_bytes = LOAD(&d->touched) + v->slab_count * (sizeof(slab) + SLAB_BITS_STEP) + d->heap_bytes;
    s->resident_bytes = view_resident(v, 0, v->slab_count);
    s->kept_bytes += LOAD(&v->shared->bytes) > 0 ? (size_t)LOAD(&v->shared->bytes) : 0;
    s->empty_slabs = d->dirty.count + d->broken.count + d->whole.count * UNIT_SLABS;
    s->purged_slabs = d->clean.count;
    s->purges = d->purges;
    s->limit_hits = d->limit_hits;
    s->demoted_pools = v->pools->demoted;
}

PEEKS void stats_gather_sums(const view *v, pm_stats *s)
{
    memset(s, 0, sizeof *s);
    s->struct_size = sizeof *s;
    s->forwarded_calls = v->forwarded;
    if (!v->ready)
        return;
    rows_begin(v, s);
    for (size_t i = 0; i < v->slab_count; i++)
        slab_add(v, &v->slabs[i], s);
    for (uint32_t i = 0; i < v->heap_count; i++)
        heap_subtract(v, view_heap(v, i), s);
    view quick = *v;
    quick.resident = NULL;
    stats_pools(&quick, pool_add_totals, s);
    rows_end(v, s);
    depot_add(v, s);
    s->busy = view_busy(v);
}

void stats_gather_from(const view *v, pm_stats *s)
{
    stats_gather_sums(v, s);
    pools_add(v, s);
}

/* Of a look at this process, which is short: no caller waits for long. */
static os_claim looker;
static pm_stats looker_stats RARE;
static uint64_t looker_slow[HEAPS_WATCHED] RARE;

static void look(view *v, bool resident)
{
    os_claim_take(&looker, true);
    view_here(v, looker_slow);
    v->resident = resident ? v->resident : NULL;
    stats_gather_sums(v, &looker_stats);
}

void stats_copy(pm_stats *s, size_t bytes, bool resident)
{
    view v;
    look(&v, resident);
    if (bytes > offsetof(pm_stats, row))
        pools_add(&v, &looker_stats);
    memcpy(s, &looker_stats, bytes);
    os_claim_give(&looker);
}

stats_sums stats_sum(void)
{
    view v;
    look(&v, false);
    stats_sums sums = {looker_stats.committed_bytes, looker_stats.used_bytes, looker_stats.empty_slabs * SLAB_SIZE + looker_stats.kept_bytes};
    os_claim_give(&looker);
    return sums;
}
