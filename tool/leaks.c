/* leaks.c: which sampled blocks of a process that stands still nobody points to.
 *
 * Roots are the registers, the stack from its pointer up, and all other memory that can be written but what is poolmalloc's own:
 * among it the next allocator's, in which only sampled blocks are told apart. From there, words that lead anywhere into a block of
 * a pool, or a sampled block of the next allocator's, are followed. Conservative: a number may look like a pointer. */
#include "proc.h"
#include "tool.h"
#include "who.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

#define CHUNK (256 * KIB)

/* A stretch of memory that has yet to be looked through. */
typedef struct stretch {
    uintptr_t from, end;
} stretch;

typedef struct scan {
    pid_t pid;
    const live *l;
    uint64_t **marks;    /* of each slab: a bit a block, or NULL: none is marked yet */
    held_block *large;   /* sampled blocks of the next allocator's, by address; marked: weight is 0 */
    size_t large_count;
    stretch *todo;
    size_t count, room;
    stretch skip[8];     /* poolmalloc's own */
    size_t skips;
} scan;

static void todo_push(scan *s, uintptr_t from, uintptr_t end)
{
    if (from >= end)
        return;
    s->todo = grown(s->todo, s->count, &s->room, sizeof *s->todo);
    s->todo[s->count++] = (stretch){from, end};
}

/* ---- blocks ---- */

static size_t slab_colour(size_t index, const size_class *c) { return (index & c->colours) << COLOUR_SHIFT; }

/* Number of the block of a malloc's slab that p lies in, or SIZE_MAX. */
static size_t block_number(const scan *s, uintptr_t p, size_t *slab_number, size_t *size)
{
    const view *v = &s->l->view;
    uintptr_t offset = p - (uintptr_t)v->region->blocks.base;
    size_t index = offset >> SLAB_SHIFT;
    if (index >= v->slab_count)
        return SIZE_MAX;
    const slab *b = &v->slabs[index];
    if (!slab_in_use(b) || b->home == v->pool_home || b->klass >= v->class_count)
        return SIZE_MAX;
    const size_class *c = &v->classes[b->klass];
    size_t first = slab_colour(index, c), within = offset % SLAB_SIZE;
    if (within < first || c->size == 0 || (within - first) / c->size >= c->per_slab)
        return SIZE_MAX;
    *slab_number = index;
    *size = c->size;
    return (within - first) / c->size;
}

static int by_place(const void *place, const void *large)
{
    uintptr_t p = *(const uintptr_t *)place;
    const held_block *b = large;
    return p < b->block ? -1 : p - b->block >= b->size;
}

static held_block *large_find(const scan *s, uintptr_t p)
{
    return s->large_count ? bsearch(&p, s->large, s->large_count, sizeof *s->large, by_place) : NULL;
}

static void block_reach(scan *s, uintptr_t p)
{
    size_t index, size, number = block_number(s, p, &index, &size);
    if (number == SIZE_MAX)
        return;
    if (!s->marks[index])
        s->marks[index] = need(calloc(SLAB_SIZE / QUANTUM / 64, sizeof(uint64_t)));
    uint64_t *word = &s->marks[index][number / 64], bit = (uint64_t)1 << number % 64;
    if (*word & bit)
        return;
    *word |= bit;
    const view *v = &s->l->view;
    uintptr_t base = (uintptr_t)v->region->blocks.base + index * SLAB_SIZE + slab_colour(index, &v->classes[v->slabs[index].klass]);
    todo_push(s, base + number * size, base + (number + 1) * size);
}

static void pointer_follow(scan *s, uintptr_t p)
{
    const region *r = s->l->view.region;
    if (p - (uintptr_t)r->blocks.base < r->size) {
        block_reach(s, p);
        return;
    }
    held_block *large = large_find(s, p);
    if (large && large->weight) {
        large->weight = 0;
        todo_push(s, large->block, large->block + large->size);
    }
}

static bool is_marked(const scan *s, const held_block *b)
{
    size_t index, size, number = block_number(s, b->block, &index, &size);
    if (number != SIZE_MAX)
        return s->marks[index] && (s->marks[index][number / 64] >> number % 64 & 1);
    const held_block *large = large_find(s, b->block);
    return !large || large->weight == 0;
}

/* ---- memory ---- */

static void stretch_scan(scan *s, stretch at)
{
    static uint64_t words[CHUNK / sizeof(uint64_t)];
    for (uintptr_t from = (at.from + 7) & ~(uintptr_t)7; from + sizeof *words <= at.end; from += CHUNK) {
        size_t bytes = (size_min(at.end - from, CHUNK)) & ~(size_t)7;
        struct iovec local = {words, bytes}, remote = {(void *)from, bytes}; /* NOLINT: another process's address */
        ssize_t got = process_vm_readv(s->pid, &local, 1, &remote, 1, 0);
        for (ssize_t i = 0; i < got / (ssize_t)sizeof *words; i++)
            pointer_follow(s, words[i]);
    }
}

static void todo_scan(scan *s)
{
    while (s->count > 0)
        stretch_scan(s, s->todo[--s->count]);
}

/* What of [from, end) is not to be skipped. */
static void root_add(scan *s, uintptr_t from, uintptr_t end)
{
    for (size_t i = 0; i < s->skips && from < end; i++) {
        const stretch *skip = &s->skip[i];
        if (skip->end <= from || skip->from >= end)
            continue;
        root_add(s, from, skip->from < from ? from : skip->from);
        from = skip->end;
    }
    while (from < end) { /* sampled blocks of the next allocator's are no roots */
        held_block *b = NULL;
        for (size_t i = 0; i < s->large_count && !b; i++)
            if (s->large[i].block + s->large[i].size > from && s->large[i].block < end)
                b = &s->large[i];
        uintptr_t stop = !b ? end : b->block > from ? b->block : from;
        todo_push(s, from, stop);
        from = b ? b->block + b->size : end;
    }
}

/* Slabs of explicit pools and arenas are roots, whatever is in them. */
static void guests_add(scan *s)
{
    const view *v = &s->l->view;
    for (size_t i = 0; i < v->slab_count; i++)
        if (slab_in_use(&v->slabs[i]) && v->slabs[i].home == v->pool_home) {
            uintptr_t at = (uintptr_t)v->region->blocks.base + i * SLAB_SIZE;
            todo_push(s, at, at + SLAB_SIZE);
        }
}

static void registers_add(scan *s, uintptr_t *stack)
{
    struct user_regs_struct r;
    if (ptrace(PTRACE_GETREGS, s->pid, NULL, &r) != 0)
        return;
    const unsigned long long *word = (const unsigned long long *)(const void *)&r;
    for (size_t i = 0; i < sizeof r / sizeof *word; i++)
        pointer_follow(s, (uintptr_t)word[i]);
    *stack = (uintptr_t)r.rsp;
}

static live_result roots_add(scan *s)
{
    uintptr_t stack = 0;
    mapping m;
    registers_add(s, &stack);
    FILE *maps = proc_open(s->pid, "maps");
    if (!maps)
        return LIVE_NO_PROCESS;
    while (mapping_next(maps, &m))
        if (strncmp(m.rights, "rw", 2) == 0)
            root_add(s, stack >= m.start && stack < m.end ? stack : m.start, m.end);
    fclose(maps);
    return LIVE_FOUND;
}

static void skip_add(scan *s, const void *from, size_t bytes)
{
    s->skip[s->skips++] = (stretch){(uintptr_t)from, (uintptr_t)from + bytes};
}

static void own_skip(scan *s, const sampler *from)
{
    const region *r = s->l->view.region;
    const void *table = NULL;
    skip_add(s, r->blocks.base - r->free_bits.size, r->free_bits.size + r->blocks.size);
    skip_add(s, r->records.base, r->records.size);
    skip_add(s, r->heaps.base, r->heaps.size);
    if (live_read(s->pid, from->control.samples, &table, sizeof table) == LIVE_FOUND && table)
        skip_add(s, table, from->table.bytes);
}

static int by_address(const void *left, const void *right)
{
    const held_block *a = left, *b = right;
    return (a->block > b->block) - (a->block < b->block);
}

static void large_list(scan *s, const held *h)
{
    const region *r = s->l->view.region;
    s->large = need(malloc((h->block_count + 1) * sizeof *s->large));
    for (size_t i = 0; i < h->block_count; i++)
        if (h->blocks[i].block - (uintptr_t)r->blocks.base >= r->size)
            s->large[s->large_count++] = h->blocks[i];
    qsort(s->large, s->large_count, sizeof *s->large, by_address);
}

static void look_keep(held *h, held_look *look, const scan *s)
{
    memset(look->sum, 0, look->count * sizeof *look->sum);
    look->total = (held_sum){0};
    for (size_t i = 0; i < h->block_count; i++)
        if (!is_marked(s, &h->blocks[i]))
            held_add(look, &h->blocks[i]);
}

live_result leaks_find(pid_t pid, held *h, held_look *look, const sampler *from)
{
    static live l;
    scan s = {.pid = pid, .l = &l};
    live_result result = live_open(&l, pid);
    if (result != LIVE_FOUND)
        return result;
    result = live_take(&l);
    if (result == LIVE_FOUND) {
        s.marks = need(calloc(l.view.slab_count + 1, sizeof *s.marks));
        large_list(&s, h);
        own_skip(&s, from);
        guests_add(&s);
        result = roots_add(&s);
        todo_scan(&s);
        look_keep(h, look, &s);
        for (size_t i = 0; i < l.view.slab_count; i++)
            free(s.marks[i]);
        free(s.marks);
        free(s.large);
        free(s.todo);
    }
    live_close(&l);
    return result;
}
