/* held.c: see held.h. */
#include "held.h"


#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MOST 512
#define CUT ((uint32_t)1 << 31)

static uint64_t mix(uint64_t n)
{
    n *= 0x9E3779B97F4A7C15u;
    return n ^ n >> 29;
}

/* ---- stacks, each once ---- */

static uint64_t stack_hash(const uint32_t *names, size_t depth)
{
    uint64_t hash = depth;
    for (size_t i = 0; i < depth; i++)
        hash = mix(hash + names[i]);
    return hash;
}

static void hashes_grow(held *h)
{
    free(h->by_hash);
    h->hash_room = h->hash_room ? 2 * h->hash_room : 1024;
    h->by_hash = need(calloc(h->hash_room, sizeof *h->by_hash));
    for (size_t i = 0; i < h->stack_count; i++) {
        size_t at = stack_hash(h->stacks[i].names, h->stacks[i].depth) % h->hash_room;
        while (h->by_hash[at])
            at = (at + 1) % h->hash_room;
        h->by_hash[at] = (uint32_t)i + 1;
    }
}

static uint32_t stack_intern(held *h, const uint32_t *names, size_t depth)
{
    if (2 * h->stack_count >= h->hash_room)
        hashes_grow(h);
    size_t at = stack_hash(names, depth) % h->hash_room;
    for (; h->by_hash[at]; at = (at + 1) % h->hash_room) {
        const held_stack *s = &h->stacks[h->by_hash[at] - 1];
        if (s->depth == depth && memcmp(s->names, names, depth * sizeof *names) == 0)
            return h->by_hash[at] - 1;
    }
    if (h->stack_count == h->stack_room) {
        h->stack_room = 2 * h->stack_room + 64;
        h->stacks = need(realloc(h->stacks, h->stack_room * sizeof *h->stacks));
    }
    uint32_t *own = need(malloc((depth + 1) * sizeof *own));
    memcpy(own, names, depth * sizeof *own);
    h->stacks[h->stack_count] = (held_stack){own, depth};
    h->by_hash[at] = (uint32_t)++h->stack_count;
    return (uint32_t)h->stack_count - 1;
}

/* ---- samples that were met before ---- */

static size_t number_at(const held *h, uint64_t number)
{
    size_t at = mix(number) % h->number_room;
    while (h->numbers[at] && h->numbers[at] != number)
        at = (at + 1) % h->number_room;
    return at;
}

static void numbers_grow(held *h)
{
    uint64_t *old = h->numbers;
    uint32_t *stacks = h->stack_of;
    size_t room = h->number_room;
    h->number_room = room ? 2 * room : 4096;
    h->numbers = need(calloc(h->number_room, sizeof *h->numbers));
    h->stack_of = need(calloc(h->number_room, sizeof *h->stack_of));
    for (size_t i = 0; i < room; i++)
        if (old[i]) {
            size_t at = number_at(h, old[i]);
            h->numbers[at] = old[i];
            h->stack_of[at] = stacks[i];
        }
    free(old);
    free(stacks);
}

static bool sample_is_new(void *context, uint64_t number)
{
    const held *h = context;
    return h->number_room == 0 || h->numbers[number_at(h, number)] == 0;
}

/* ---- one sample ---- */

static uint32_t group_name(held *h, const who_sample *s)
{
    char group[100], path[64], command[40] = "";
    if (h->by == BY_SIZE) {
        snprintf(group, sizeof group, "%" PRIu64 " bytes", s->size);
        return unwinder_intern(h->names, group);
    }
    snprintf(path, sizeof path, "/proc/%d/task/%u/comm", (int)h->pid, s->thread);
    FILE *file = fopen(path, "re");
    if (file && !fgets(command, sizeof command, file))
        command[0] = 0;
    if (file)
        fclose(file);
    command[strcspn(command, "\n")] = 0;
    snprintf(group, sizeof group, "thread %u %s", s->thread, command);
    return unwinder_intern(h->names, group);
}

static uint32_t sample_unwind(held *h, const who_sample *s, const void *stack)
{
    uint32_t inner[DEPTH_MOST], outer[DEPTH_MOST + 3];
    bool cut;
    size_t count = unwinder_walk(h->names, s, stack, inner, DEPTH_MOST, &cut), depth = 0;
    if (h->by != BY_STACK)
        outer[depth++] = group_name(h, s);
    if (cut)
        outer[depth++] = unwinder_intern(h->names, "[stack cut off]");
    while (count > 0)
        outer[depth++] = inner[--count];
    if (depth == 0)
        outer[depth++] = unwinder_intern(h->names, "[no stack]");
    return stack_intern(h, outer, depth) | (cut ? CUT : 0);
}

static void sum_add(held_sum *to, const held_block *b)
{
    double size = (double)(b->size ? b->size : 1), weight = (double)b->weight;
    to->bytes += weight;
    to->blocks += weight / size;
    to->variance += weight > size ? weight * (weight - size) : 0;
    to->samples++;
}

static void look_cover(held_look *look, size_t count)
{
    if (count <= look->count)
        return;
    look->sum = need(realloc(look->sum, count * sizeof *look->sum));
    memset(look->sum + look->count, 0, (count - look->count) * sizeof *look->sum);
    look->count = count;
}

void held_add(held_look *look, const held_block *b)
{
    sum_add(&look->sum[b->stack], b);
    sum_add(&look->total, b);
}

static void block_note(held *h, held_block b)
{
    if (h->block_count == h->block_room) {
        h->block_room = 2 * h->block_room + 64;
        h->blocks = need(realloc(h->blocks, h->block_room * sizeof *h->blocks));
    }
    h->blocks[h->block_count++] = b;
}

static void sample_take(void *context, const who_sample *s, const void *stack)
{
    held *h = context;
    if (2 * h->number_count >= h->number_room)
        numbers_grow(h);
    size_t at = number_at(h, s->number);
    if (!h->numbers[at]) {
        if (!stack)
            return;
        h->numbers[at] = s->number;
        h->stack_of[at] = sample_unwind(h, s, stack);
        h->number_count++;
    }
    const held_block b = {s->block, s->size, h->stack_of[at] & ~CUT, s->weight};
    look_cover(h->look, h->stack_count);
    held_add(h->look, &b);
    h->look->cut += (h->stack_of[at] & CUT) != 0;
    block_note(h, b);
}

live_result held_take(held *h, sampler *s, bool all, held_look *look)
{
    sample_reader reader = {sample_is_new, sample_take, h, 0};
    memset(look, 0, sizeof *look);
    h->look = look;
    h->block_count = 0;
    live_result result = sampler_read(s, all, &reader);
    look_cover(look, h->stack_count);
    look->torn = reader.torn;
    return result;
}

static void sum_subtract(held_sum *from, const held_sum *less)
{
    from->bytes = fmax(0, from->bytes - less->bytes);
    from->blocks = fmax(0, from->blocks - less->blocks);
    from->variance += less->variance;
}

void held_subtract(held_look *later, const held_look *earlier)
{
    held_sum total = {0};
    for (size_t i = 0; i < later->count; i++) {
        if (i < earlier->count)
            sum_subtract(&later->sum[i], &earlier->sum[i]);
        total.bytes += later->sum[i].bytes;
        total.blocks += later->sum[i].blocks;
        total.variance += later->sum[i].variance;
        total.samples += later->sum[i].samples;
    }
    later->total = total;
}

double held_error(const held_sum *sum) { return 2 * sqrt(sum->variance); }

/* ---- the tree ---- */

static held_node *node_below(held_node *parent, uint32_t name)
{
    held_node *n = parent->child;
    while (n && n->name != name)
        n = n->sibling;
    if (!n) {
        n = need(calloc(1, sizeof *n));
        n->name = name;
        n->sibling = parent->child;
        parent->child = n;
    }
    return n;
}

static void node_add(held_node *n, const held_sum *s)
{
    n->sum.bytes += s->bytes;
    n->sum.blocks += s->blocks;
    n->sum.variance += s->variance;
    n->sum.samples += s->samples;
}

static int node_order(const void *left, const void *right)
{
    const held_node *a = *(held_node *const *)left, *b = *(held_node *const *)right;
    return (a->sum.bytes < b->sum.bytes) - (a->sum.bytes > b->sum.bytes);
}

static void children_sort(held_node *parent)
{
    size_t count = 0, i = 0;
    for (held_node *n = parent->child; n; n = n->sibling)
        count++;
    held_node **all = need(malloc((count + 1) * sizeof(held_node *)));
    for (held_node *n = parent->child; n; n = n->sibling)
        all[i++] = n;
    qsort(all, count, sizeof *all, node_order);
    held_node **link = &parent->child;
    for (i = 0; i < count; i++) {
        *link = all[i];
        link = &all[i]->sibling;
        children_sort(all[i]);
    }
    *link = NULL;
    free(all);
}

held_node *held_tree(const held *h, const held_look *look)
{
    held_node *root = need(calloc(1, sizeof *root));
    for (size_t i = 0; i < look->count; i++) {
        held_node *n = root;
        if (look->sum[i].bytes <= 0)
            continue;
        node_add(n, &look->sum[i]);
        for (size_t k = 0; k < h->stacks[i].depth; k++) {
            n = node_below(n, h->stacks[i].names[k]);
            node_add(n, &look->sum[i]);
        }
    }
    children_sort(root);
    return root;
}

void held_tree_free(held_node *n)
{
    for (held_node *child = n->child, *next; child; child = next) {
        next = child->sibling;
        held_tree_free(child);
    }
    free(n);
}

/* ---- open, close ---- */

bool held_open(held *h, pid_t pid, held_by by, bool lines)
{
    memset(h, 0, sizeof *h);
    h->pid = pid;
    h->by = by;
    h->names = unwinder_open(pid, lines);
    return h->names != NULL;
}

void held_close(held *h)
{
    unwinder_close(h->names);
    for (size_t i = 0; i < h->stack_count; i++)
        free(h->stacks[i].names);
    free(h->stacks);
    free(h->by_hash);
    free(h->numbers);
    free(h->stack_of);
    free(h->blocks);
}
