/* arena.c: Arenas: a pointer that moves through chunks. A chunk is a slab, or, for what is larger than that, a
 * block of malloc's. An arena over the caller's buffer has no chunk. */
#include "pools/depot.h"
#include "ground/os.h"
#include "explicit/pool.h"
#include "pools/registry.h"

#include <errno.h>
#include <stdlib.h>

#define ALIGN_MOST UNIT_SIZE
#define RECORD_BYTES ((size_t)64)

typedef struct chunk {
    _Alignas(16) struct chunk *next; /* used after this one, or kept for later */
    char *end;
    bool is_slab;
} chunk;

struct pm_arena {
    pm_arena_room room; /* first: what callers bump inline */
    chunk *current, *first; /* NULL over a buffer */
    char *buffer, *buffer_end;
    bool recorded; /* this record is one of record_take's */
};
static_assert(sizeof(pm_arena) <= RECORD_BYTES && sizeof(pm_arena) <= sizeof(pm_pool), "fits a record, and a buffer's head");
static_assert(offsetof(pm_arena, room) == 0, "");

static void *refused(int error)
{
    errno = error;
    return NULL;
}

/* ---- chunks ---- */

static chunk *chunk_set(void *memory, size_t bytes, bool is_slab)
{
    chunk *c = memory;
    if (c)
        *c = (chunk){.end = (char *)memory + bytes, .is_slab = is_slab};
    return c;
}

/* A chunk with room for `bytes`, which count its head; NULL: no memory. */
static chunk *chunk_new(size_t bytes)
{
    heap *h = heap_enter_mine();
    slab *s = bytes <= SLAB_ROOM ? guest_slab(h) : NULL;
    heap_leave_mine(h);
    if (s) {
        s->out = 0;
        __atomic_fetch_add(&pm_pools.arena_slabs, 1, __ATOMIC_RELAXED);
        return chunk_set(slab_begin(s), SLAB_ROOM, true);
    }
    bytes = size_max(bytes, SLAB_SIZE);
    return chunk_set(malloc(bytes), bytes, false);
}

static void chunk_end(chunk *c)
{
    if (!c->is_slab) {
        free(c);
        return;
    }
    slab *s = slab_of(c);
    slab_disown(s);
    s->next = NULL;
    __atomic_fetch_sub(&pm_pools.arena_slabs, 1, __ATOMIC_RELAXED);
    heap *h = heap_enter_mine();
    depot_put(s);
    heap_leave_mine(h);
}

/* The chunk after the current one, if it has room for `bytes`, else a new one. */
static bool chunk_advance(pm_arena *a, size_t bytes)
{
    chunk *c = a->current->next;
    if (!c || (size_t)(c->end - (char *)c) < bytes) {
        c = chunk_new(bytes);
        if (!c)
            return false;
        c->next = a->current->next;
        a->current->next = c;
    }
    a->current = c;
    a->room = (pm_arena_room){(char *)(c + 1), c->end};
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
    a->room = (pm_arena_room){a->buffer, a->buffer_end};
    return a;
}

static bool arena_reserve(pm_arena *a, size_t bytes)
{
    if (bytes > PTRDIFF_MAX - sizeof(chunk))
        return false;
    a->first = a->current = chunk_new(sizeof(chunk) + bytes);
    if (!a->first)
        return false;
    pm_arena_reset(a);
    return true;
}

pm_arena *pm_arena_create(void *buffer, size_t bytes)
{
    if (bytes > PTRDIFF_MAX || (buffer && bytes == 0))
        return refused(EINVAL);
    pm_arena *a = buffer ? arena_over(buffer, bytes) : arena_record();
    if (a && !buffer && !arena_reserve(a, bytes)) {
        pm_arena_destroy(a);
        a = NULL;
    }
    return a ? a : refused(ENOMEM);
}

void pm_arena_destroy(pm_arena *a)
{
    if (!a)
        return;
    for (chunk *c = a->first, *next; c; c = next) {
        next = c->next;
        chunk_end(c);
    }
    if (!a->recorded)
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

static NOINLINE void *alloc_grown(pm_arena *a, size_t size, size_t align)
{
    size_t head = sizeof(chunk) + (align > QUANTUM ? align : 0);
    if (size > PTRDIFF_MAX - head || !a->first || !chunk_advance(a, head + size))
        return refused(ENOMEM);
    return room_take(&a->room, size, align);
}

void *pm_arena_alloc(pm_arena *a, size_t size, size_t align)
{
    align = align ? align : QUANTUM;
    if (UNLIKELY(!a || !is_power_of_two(align) || align > ALIGN_MOST))
        return refused(EINVAL);
    void *p = room_take(&a->room, size, align);
    return LIKELY(p != NULL) ? p : alloc_grown(a, size, align);
}

pm_arena_mark pm_arena_save(const pm_arena *a)
{
    return a ? (pm_arena_mark){a->current, a->room.at} : (pm_arena_mark){NULL, NULL};
}

void pm_arena_rewind(pm_arena *a, pm_arena_mark mark)
{
    if (!a || !mark.at)
        return;
    a->current = mark.chunk;
    a->room = (pm_arena_room){mark.at, a->current ? a->current->end : a->buffer_end};
}

void pm_arena_reset(pm_arena *a)
{
    if (!a)
        return;
    a->current = a->first;
    a->room = a->first ? (pm_arena_room){(char *)(a->first + 1), a->first->end} : (pm_arena_room){a->buffer, a->buffer_end};
}
