/* held.c: see held.h. */
#include "held.h"

#include "proc.h"
#include "tool.h"

#include <inttypes.h>
#include <math.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MOST 512

/* ---- stacks, each once ---- */

static int stack_order(const void *left, const void *right)
{
    const held_stack *a = left, *b = right;
    return a->depth != b->depth ? (a->depth > b->depth) - (a->depth < b->depth) : memcmp(a->names, b->names, a->depth * sizeof *a->names);
}

static uint32_t stack_intern(held *h, uint32_t *names, size_t depth)
{
    const held_stack sought = {.names = names, .depth = depth};
    held_stack **found = tfind(&sought, &h->by_names, stack_order);
    if (found)
        return (*found)->number;
    held_stack *s = need(malloc(sizeof *s));
    *s = (held_stack){need(malloc((depth + 1) * sizeof *names)), depth, (uint32_t)h->stack_count};
    memcpy(s->names, names, depth * sizeof *names);
    need(tsearch(s, &h->by_names, stack_order));
    h->stacks = grown(h->stacks, h->stack_count, &h->stack_room, sizeof *h->stacks);
    h->stacks[h->stack_count++] = s;
    return s->number;
}

/* ---- samples that were met before ---- */

typedef struct met {
    uint64_t number;
    uint32_t stack;
    bool cut;
} met;

static int met_order(const void *left, const void *right)
{
    const met *a = left, *b = right;
    return (a->number > b->number) - (a->number < b->number);
}

static const met *met_find(const held *h, uint64_t number)
{
    const met sought = {.number = number};
    met **found = tfind(&sought, &h->met, met_order);
    return found ? *found : NULL;
}

static bool sample_is_new(void *context, uint64_t number) { return !met_find(context, number); }

/* ---- one sample ---- */

static uint32_t group_name(held *h, const who_sample *s)
{
    char group[100], task[40], command[40];
    if (h->by == BY_SIZE) {
        snprintf(group, sizeof group, "%" PRIu64 " bytes", s->size);
        return unwinder_intern(h->names, group);
    }
    snprintf(task, sizeof task, "task/%u/comm", s->thread);
    proc_read(h->pid, task, command, sizeof command);
    command[strcspn(command, "\n")] = 0;
    snprintf(group, sizeof group, "thread %u %s", s->thread, command);
    return unwinder_intern(h->names, group);
}

static const met *sample_unwind(held *h, const who_sample *s, const void *stack)
{
    uint32_t inner[DEPTH_MOST], outer[DEPTH_MOST + 3];
    met *m = need(malloc(sizeof *m));
    size_t count = unwinder_walk(h->names, s, stack, inner, DEPTH_MOST, &m->cut), depth = 0;
    if (h->by != BY_STACK)
        outer[depth++] = group_name(h, s);
    if (m->cut)
        outer[depth++] = unwinder_intern(h->names, "[stack cut off]");
    while (count > 0)
        outer[depth++] = inner[--count];
    if (depth == 0)
        outer[depth++] = unwinder_intern(h->names, "[no stack]");
    m->number = s->number;
    m->stack = stack_intern(h, outer, depth);
    return *(met **)need(tsearch(m, &h->met, met_order));
}

static void sum_add(held_sum *to, const held_sum *s)
{
    to->bytes += s->bytes;
    to->blocks += s->blocks;
    to->variance += s->variance;
    to->samples += s->samples;
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
    double size = (double)(b->size ? b->size : 1), weight = (double)b->weight;
    const held_sum one = {weight, weight / size, weight > size ? weight * (weight - size) : 0, 1};
    sum_add(&look->sum[b->stack], &one);
    sum_add(&look->total, &one);
}

static void sample_take(void *context, const who_sample *s, const void *stack)
{
    held *h = context;
    const met *m = met_find(h, s->number);
    if (!m && !stack)
        return;
    m = m ? m : sample_unwind(h, s, stack);
    h->blocks = grown(h->blocks, h->block_count, &h->block_room, sizeof *h->blocks);
    held_block *b = &h->blocks[h->block_count++];
    *b = (held_block){s->block, s->size, m->stack, s->weight};
    look_cover(h->look, h->stack_count);
    held_add(h->look, b);
    h->look->cut += m->cut;
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
        sum_add(&total, &later->sum[i]);
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
        sum_add(&n->sum, &look->sum[i]);
        for (size_t k = 0; k < h->stacks[i]->depth; k++) {
            n = node_below(n, h->stacks[i]->names[k]);
            sum_add(&n->sum, &look->sum[i]);
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

static void stack_free(void *stack)
{
    free(((held_stack *)stack)->names);
    free(stack);
}

void held_close(held *h)
{
    unwinder_close(h->names);
    tdestroy(h->by_names, stack_free);
    tdestroy(h->met, free);
    free(h->stacks);
    free(h->blocks);
}
