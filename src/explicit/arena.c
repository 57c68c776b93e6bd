/* arena.c: Arenas: a pointer that moves through chunks. A chunk is a slab, or, for what is larger than that, a block of
 * malloc's, or comes from where the caller says. An arena over the caller's buffer has no chunk. */
#include "pools/depot.h"
#include "ground/os.h"
#include "explicit/pool.h"
#include "pools/misuse.h"
#include "pools/registry.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN_MOST UNIT_SIZE
#define RECORD_BYTES ((size_t)64)

typedef struct chunk {
    _Alignas(16) struct chunk *next; /* used after this one, or kept for later */
    char *end;
    size_t before; /* bytes taken from the chunks before this one, when it became the current one */
    bool is_slab;
} chunk;

/* What pm_arena_defer was told; lies in the arena itself. */
typedef struct deferred {
    struct deferred *older;
    void (*run)(void *); /* NULL: no longer */
    void *context;
    size_t place; /* of this */
} deferred;

/* Where misuse is watched for, of an arena that grows: behind each allocation, at whatever address. */
typedef struct fence {
    uint64_t canary; /* of the other two, and the address */
    const char *older;
    size_t place; /* of this */
} fence;

/* Places in an arena are ordered by the bytes taken before them: see place(). */
struct pm_arena {
    pm_arena_room room; /* first: what callers bump inline */
    chunk *current, *first; /* NULL over a buffer */
    char *buffer, *buffer_end;
    deferred *newest; /* linked by older: to be run before the memory that they lie in is given back */
    bool recorded; /* this record is one of record_take's */
};

/* An arena that grows. */
typedef struct growing {
    pm_arena arena;
    size_t held, limit; /* bytes of all chunks; the most they may have */
    size_t chunk_bytes; /* that a chunk has at least */
    void *(*take)(size_t, void *); /* where chunks come from; NULL: slabs and malloc */
    void (*give)(void *, size_t, void *);
    void *context;
    deferred *in_parent; /* of a sub-arena: ends it with its parent */
    const char *newest_fence; /* linked by older: looked at before the memory that they lie in is given back */
} growing;
static_assert(sizeof(pm_arena) <= RECORD_BYTES, "fits a buffer's head");
static_assert(sizeof(growing) <= sizeof(pm_pool), "fits a record");
static_assert(offsetof(pm_arena, room) == 0 && offsetof(growing, arena) == 0, "");

static growing *grows(const pm_arena *a) { return a->buffer ? NULL : (growing *)a; }

static char *start_of(const pm_arena *a, const chunk *c) { return c ? (char *)(c + 1) : a->buffer; }
static pm_arena_room room_of(const pm_arena *a, const chunk *c) { return (pm_arena_room){start_of(a, c), c ? c->end : a->buffer_end}; }

static size_t place(const pm_arena *a, const chunk *c, const void *at)
{
    return (c ? c->before : 0) + (size_t)((const char *)at - start_of(a, c));
}

/* ---- fences ---- */

static COLD void misused(const char *function, const pm_arena *a, const char *what)
{
    misuse_abort(&(misuse){.function = function, .pointer = a, .what = what});
}

static bool has_fences(const pm_arena *a) { return misuse_watched() && grows(a); }

static uint64_t canary_of(const char *at, const fence *p)
{
    static uint64_t secret;
    secret = secret ? secret : os_secret() | 1;
    uint64_t word = ((uintptr_t)at ^ secret) * (secret ^ 2) ^ (uintptr_t)p->older * 3 ^ p->place;
    return (word ^ word >> 32) | 0x8080808080808080u; /* no zero, no letter */
}

/* No room is shown to who would take it inline: each allocation comes here. */
static void room_show(pm_arena *a, bool show)
{
    if (has_fences(a))
        a->room.end = show && a->current ? a->current->end : a->room.at;
}

static void fence_put(growing *g, char *at)
{
    fence p = {.older = g->newest_fence, .place = place(&g->arena, g->arena.current, at)};
    p.canary = canary_of(at, &p);
    memcpy(at, &p, sizeof p);
    g->newest_fence = at;
}

/* Those at `from` or beyond are about to be given back. */
static void fences_check(const char *function, pm_arena *a, size_t from)
{
    growing *g = has_fences(a) ? grows(a) : NULL;
    for (fence p; g && g->newest_fence; g->newest_fence = p.older) {
        memcpy(&p, g->newest_fence, sizeof p);
        if (p.canary != canary_of(g->newest_fence, &p))
            misuse_abort(&(misuse){.function = function, .pointer = g->newest_fence, .pool = "of an arena",
                                   .what = "written past the end of what lies before it"});
        if (p.place < from)
            return;
    }
}

/* ---- chunks ---- */

static chunk *chunk_set(growing *g, void *memory, size_t bytes, bool is_slab)
{
    chunk *c = memory;
    if (!c)
        return NULL;
    *c = (chunk){.end = (char *)memory + bytes, .is_slab = is_slab};
    g->held += bytes;
    return c;
}

static slab *chunk_slab(void)
{
    heap *h = heap_enter_mine();
    slab *s = guest_slab(h);
    heap_leave_mine(h);
    if (s)
        slab_out_set(s, 0);
    return s;
}

/* A chunk with room for `bytes`, which count its head, and for `more` if it can be; NULL: no memory. */
static chunk *chunk_new(growing *g, size_t bytes, size_t more)
{
    size_t left = g->limit - g->held;
    if (bytes > left)
        return NULL;
    bytes = size_min(size_max(bytes + more, g->chunk_bytes), left);
    if (g->take)
        return chunk_set(g, g->take(bytes, g->context), bytes, false);
    slab *s = bytes == SLAB_ROOM && !PM_HARDENED ? chunk_slab() : NULL; /* malloc's large blocks end at a guard, and are closed later */
    return chunk_set(g, s ? slab_begin(s) : malloc(bytes), bytes, s != NULL);
}

static void slab_leave(slab *s)
{
    slab_disown(s);
    s->next = NULL;
    heap *h = heap_enter_mine();
    depot_put(s, NULL);
    heap_leave_mine(h);
}

static void chunk_end(growing *g, chunk *c)
{
    size_t bytes = (size_t)(c->end - (char *)c);
    g->held -= bytes;
    if (c->is_slab)
        slab_leave(slab_of(c));
    else if (!g->take)
        free(c);
    else if (g->give)
        g->give(c, bytes, g->context);
}

/* The chunk after the current one, if it has room for `bytes`, else a new one, for which those that are too small give way
 * first: so an arena never holds more than was once in use together. What replaces others is larger by a quarter: so however
 * a program's requests grow, few of them need memory. */
static bool chunk_advance(growing *g, size_t bytes)
{
    pm_arena *a = &g->arena;
    chunk *c = a->current->next;
    size_t ended = 0;
    while (c && (size_t)(c->end - (char *)c) < bytes && ended < bytes) {
        a->current->next = c->next;
        ended += (size_t)(c->end - (char *)c);
        chunk_end(g, c);
        c = a->current->next;
    }
    if (!c || (size_t)(c->end - (char *)c) < bytes) {
        c = chunk_new(g, bytes, ended ? bytes / 4 : 0);
        if (!c)
            return false;
        c->next = a->current->next;
        a->current->next = c;
    }
    c->before = place(a, a->current, a->room.at);
    a->current = c;
    a->room = room_of(a, c);
    return true;
}

/* ---- creation and end ---- */

static pm_arena *arena_record(void)
{
    if (!explicit_up())
        return NULL;
    heap *h = heap_enter_mine();
    pm_arena *a = record_take(h);
    heap_leave_mine(h);
    if (a)
        a->recorded = true;
    return a;
}

/* The record lies in the buffer where that leaves at least as much again. */
static pm_arena *arena_over(char *buffer, size_t bytes)
{
    char *at = (char *)round_up((uintptr_t)buffer, QUANTUM);
    bool inside = (size_t)(at - buffer) + 2 * RECORD_BYTES <= bytes;
    pm_arena *a = inside ? (pm_arena *)at : arena_record();
    if (!a)
        return NULL;
    *a = (pm_arena){.buffer = inside ? at + RECORD_BYTES : buffer, .buffer_end = buffer + bytes, .recorded = !inside};
    a->room = room_of(a, NULL);
    return a;
}

static void *parent_take(size_t bytes, void *parent) { return pm_arena_alloc(parent, bytes, QUANTUM); }

/* What lies at `from` or beyond is about to be given back. */
static void deferred_run(pm_arena *a, size_t from)
{
    while (a->newest && a->newest->place >= from) {
        deferred *d = a->newest;
        a->newest = d->older;
        if (d->run)
            d->run(d->context);
    }
}

static void sub_end(void *sub)
{
    fences_check("pm_arena_destroy", sub, 0);
    deferred_run(sub, 0);
}

static deferred *defer(pm_arena *a, void (*run)(void *), void *context)
{
    deferred *d = pm_arena_alloc(a, sizeof *d, 0);
    if (d) {
        *d = (deferred){a->newest, run, context, place(a, a->current, d)};
        a->newest = d;
    }
    return d;
}

/* A sub-arena's record lies in its parent, and goes with it. */
static growing *growing_record(pm_arena *parent)
{
    growing *g = parent ? pm_arena_alloc(parent, sizeof *g, 0) : (growing *)arena_record();
    if (!g || !parent)
        return g;
    *g = (growing){.take = parent_take, .context = parent, .in_parent = defer(parent, sub_end, g)};
    return g->in_parent ? g : NULL;
}

static bool arena_reserve(growing *g, size_t bytes)
{
    if (bytes > PTRDIFF_MAX - sizeof(chunk))
        return false;
    g->arena.first = g->arena.current = chunk_new(g, sizeof(chunk) + bytes, 0);
    if (!g->arena.first)
        return false;
    g->arena.room = room_of(&g->arena, g->arena.first);
    room_show(&g->arena, false);
    return true;
}

static pm_arena *arena_growing(const pm_arena_options *o)
{
    growing *g = growing_record(o->parent);
    if (!g)
        return NULL;
    g->limit = o->limit ? o->limit : SIZE_MAX;
    g->chunk_bytes = o->chunk_bytes ? o->chunk_bytes : SLAB_ROOM;
    if (o->take) {
        g->take = o->take;
        g->give = o->give;
        g->context = o->context;
    }
    if (arena_reserve(g, o->bytes))
        return &g->arena;
    pm_arena_destroy(&g->arena);
    return NULL;
}

static bool options_are_good(const pm_arena_options *o)
{
    bool grows_only = o->limit || o->chunk_bytes || o->parent || o->take;
    return o->bytes <= PTRDIFF_MAX && o->chunk_bytes <= PTRDIFF_MAX && !(o->parent && o->take) &&
           !(o->buffer && (o->bytes == 0 || grows_only));
}

pm_arena *pm_arena_create_with(const pm_arena_options *options)
{
    pm_arena_options o = {0};
    if (!options || options->struct_size < sizeof o.struct_size)
        return fail_with(EINVAL);
    memcpy(&o, options, size_min(options->struct_size, sizeof o));
    if (!options_are_good(&o))
        return fail_with(EINVAL);
    pm_arena *a = o.buffer ? arena_over(o.buffer, o.bytes) : arena_growing(&o);
    return a ? a : fail_with(ENOMEM);
}

pm_arena *pm_arena_create(void *buffer, size_t bytes)
{
    return pm_arena_create_with(&(pm_arena_options){.struct_size = sizeof(pm_arena_options), .buffer = buffer, .bytes = bytes});
}

/* ---- misuse ---- */

static bool arena_is_one(const pm_arena *a)
{
    return a->buffer ? a->room.at >= a->buffer && a->room.at <= a->buffer_end : a->recorded || grows(a)->in_parent;
}

static bool mark_is_good(const pm_arena *a, pm_arena_mark mark)
{
    const chunk *c = a->first;
    while (c && c != mark.chunk && c != a->current)
        c = c->next;
    const char *at = mark.at, *end = c && c != a->current ? c->end : a->room.at;
    return c == mark.chunk && at >= start_of(a, c) && at <= end;
}

static void chunks_end(growing *g)
{
    if (g->in_parent)
        g->in_parent->run = NULL;
    for (chunk *c = g->arena.first, *next; c; c = next) {
        next = c->next;
        chunk_end(g, c);
    }
}

void pm_arena_destroy(pm_arena *a)
{
    if (!a)
        return;
    if (misuse_watched() && !arena_is_one(a))
        misused("pm_arena_destroy", a, "no arena, or one that has ended");
    fences_check("pm_arena_destroy", a, 0);
    deferred_run(a, 0);
    if (grows(a))
        chunks_end(grows(a));
    bool recorded = a->recorded;
    *a = (pm_arena){.recorded = false};
    if (!recorded)
        return;
    heap *h = heap_enter_mine();
    os_lock_take(&pm_pools.lock);
    record_give(a);
    os_lock_give(&pm_pools.lock);
    heap_leave_mine(h);
}

/* ---- use ---- */

/* Whatever size and align are: no sum may wrap around. */
INLINE void *room_take(pm_arena_room *room, size_t size, size_t align)
{
    uintptr_t at = round_up((uintptr_t)room->at, align), end = (uintptr_t)room->end;
    if (UNLIKELY(at > end || size > end - at))
        return NULL;
    room->at = (char *)(at + size);
    return (void *)at;
}

static void *alloc_advanced(pm_arena *a, size_t size, size_t align)
{
    size_t head = sizeof(chunk) + (align > QUANTUM ? align : 0);
    if (size > PTRDIFF_MAX / 2 - head || !grows(a) || !a->current || !chunk_advance(grows(a), head + size))
        return fail_with(ENOMEM);
    return room_take(&a->room, size, align);
}

static NOINLINE void *alloc_grown(pm_arena *a, size_t size, size_t align)
{
    if (LIKELY(!has_fences(a)) || size > PTRDIFF_MAX / 2)
        return alloc_advanced(a, size, align);
    room_show(a, true);
    char *p = room_take(&a->room, size + sizeof(fence), align);
    p = p ? p : alloc_advanced(a, size + sizeof(fence), align);
    if (p)
        fence_put(grows(a), p + size);
    room_show(a, false);
    return p;
}

static COLD void *refused_here(const pm_arena *a)
{
    if (PM_HARDENED && !a)
        misused("pm_arena_alloc", a, "no arena: moved from, or never made");
    return fail_with(EINVAL);
}

void *pm_arena_alloc(pm_arena *a, size_t size, size_t align)
{
    align = align ? align : QUANTUM;
    if (UNLIKELY(!a || !is_power_of_two(align) || align > ALIGN_MOST))
        return refused_here(a);
    void *p = room_take(&a->room, size, align);
    return LIKELY(p != NULL) ? p : alloc_grown(a, size, align);
}

int pm_arena_defer(pm_arena *a, void (*run)(void *context), void *context)
{
    if (!a || !run)
        errno = EINVAL;
    return a && run && defer(a, run, context) ? 0 : -1;
}

pm_arena_mark pm_arena_save(const pm_arena *a)
{
    return a ? (pm_arena_mark){a->current, a->room.at} : (pm_arena_mark){NULL, NULL};
}

void pm_arena_rewind(pm_arena *a, pm_arena_mark mark)
{
    if (!a || !mark.at)
        return;
    if (misuse_watched() && !mark_is_good(a, mark))
        misused("pm_arena_rewind", a, "the mark is void");
    fences_check("pm_arena_rewind", a, place(a, mark.chunk, mark.at));
    if (a->newest)
        deferred_run(a, place(a, mark.chunk, mark.at));
    a->current = mark.chunk;
    a->room = room_of(a, a->current);
    a->room.at = mark.at;
    room_show(a, false);
}

void pm_arena_reset(pm_arena *a)
{
    if (!a)
        return;
    fences_check("pm_arena_reset", a, 0);
    deferred_run(a, 0);
    a->current = a->first;
    a->room = room_of(a, a->first);
    room_show(a, false);
}

void pm_arena_stats_get(const pm_arena *a, pm_arena_stats *stats)
{
    if (!a || !stats || stats->struct_size < sizeof(size_t))
        return;
    const growing *g = grows(a);
    pm_arena_stats s = {.struct_size = stats->struct_size,
                        .used = place(a, a->current, a->room.at),
                        .held = g ? g->held : (size_t)(a->buffer_end - a->buffer),
                        .limit = g && g->limit != SIZE_MAX ? g->limit : 0};
    memcpy(stats, &s, size_min(stats->struct_size, sizeof s));
}

/* ---- text ---- */

char *pm_arena_strdup(pm_arena *a, const char *string)
{
    if (!string)
        return fail_with(EINVAL);
    size_t bytes = strlen(string) + 1;
    char *copy = pm_arena_alloc(a, bytes, 1);
    return copy ? memcpy(copy, string, bytes) : NULL;
}

/* Printed where the room is; once more where that was too small. */
char *pm_arena_vprintf(pm_arena *a, const char *format, va_list arguments)
{
    if (!a || !format)
        return fail_with(EINVAL);
    va_list again;
    va_copy(again, arguments);
    size_t room = size_min((size_t)(a->room.end - a->room.at), INT_MAX);
    int length = vsnprintf(a->room.at, room, format, arguments);
    char *printed = length < 0 ? NULL : pm_arena_alloc(a, (size_t)length + 1, 1);
    if (printed && (size_t)length >= room)
        vsnprintf(printed, (size_t)length + 1, format, again);
    va_end(again);
    return printed;
}

char *pm_arena_printf(pm_arena *a, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *printed = pm_arena_vprintf(a, format, arguments);
    va_end(arguments);
    return printed;
}
