/* held_print.c: what call stacks hold, as a tree for people, as folded stacks, and as JSON. */
#include "held.h"
#include "words.h"

#include <string.h>

static const char *name_of(const held_report *r, uint32_t name) { return unwinder_name(r->held->names, name)->text; }

/* ---- tree ---- */

typedef struct tree {
    const held_report *r;
    FILE *to;
    double least; /* bytes */
} tree;

static void node_line(const tree *t, const held_node *n, int indent)
{
    double whole = t->r->look->total.bytes;
    fprintf(t->to, "%6.1f%% %8s ±%-7s %9.0f  %*s%s\n", 100 * n->sum.bytes / whole, HUMAN(n->sum.bytes),
            HUMAN(held_error(&n->sum)), n->sum.blocks, indent, "", name_of(t->r, n->name));
}

/* A chain in which each has but one below it is one step of the staircase. */
static void node_print(const tree *t, const held_node *n, int indent)
{
    node_line(t, n, indent);
    for (; n->child && !n->child->sibling && n->child->sum.samples == n->sum.samples; n = n->child)
        fprintf(t->to, "%37s%*s%s\n", "", indent, "", name_of(t->r, n->child->name));
    double hidden = 0;
    for (const held_node *c = n->child; c; c = c->sibling)
        if (c->sum.bytes >= t->least)
            node_print(t, c, indent + 2);
        else
            hidden += c->sum.bytes;
    if (hidden >= t->least)
        fprintf(t->to, "%6.1f%% %8s %18s  %*s… in smaller parts\n", 100 * hidden / t->r->look->total.bytes, HUMAN(hidden), "", indent + 2, "");
}

static void remarks_print(const held_report *r, FILE *to)
{
    for (const char *const *remark = r->remarks; remark && *remark; remark++)
        fprintf(to, "%s\n", *remark);
}

bool held_print_tree(const held_report *r, FILE *to, double least)
{
    const held_sum *all = &r->look->total;
    fprintf(to, "process %d %s: %s (%.1f s)\n", (int)r->pid, r->command, r->what, r->seconds);
    fprintf(to, "%s ±%s in %.0f blocks, from %zu samples, one in %s bytes", HUMAN(all->bytes), HUMAN(held_error(all)), all->blocks,
            all->samples, HUMAN(r->rate));
    if (r->known >= 0)
        fprintf(to, "; the pools hold %s in all", HUMAN(r->known));
    fprintf(to, "\n");
    remarks_print(r, to);
    if (all->samples == 0 || all->bytes <= 0)
        return fflush(to) == 0;
    fprintf(to, "\n%7s %8s %8s %9s  call stack, outermost first\n", "", "bytes", "error", "blocks");
    held_node *root = held_tree(r->held, r->look);
    const tree t = {r, to, least * all->bytes};
    for (const held_node *n = root->child; n; n = n->sibling)
        if (n->sum.bytes >= t.least)
            node_print(&t, n, 0);
    held_tree_free(root);
    return fflush(to) == 0 && !ferror(to);
}

/* ---- folded ---- */

bool held_print_folded(const held_report *r, FILE *to)
{
    for (size_t i = 0; i < r->look->count; i++) {
        const held_stack *s = r->held->stacks[i];
        if (r->look->sum[i].bytes < 0.5)
            continue;
        for (size_t k = 0; k < s->depth; k++) {
            fputs(k ? ";" : "", to);
            for (const char *c = name_of(r, s->names[k]); *c; c++)
                fputc(*c == ';' ? ':' : *c, to);
        }
        fprintf(to, " %.0f\n", r->look->sum[i].bytes);
    }
    return fflush(to) == 0 && !ferror(to);
}

/* ---- JSON ---- */

static void json_string(FILE *to, const char *from)
{
    fputc('"', to);
    for (; *from; from++) /* names are clean: no control characters */
        fprintf(to, *from == '"' || *from == '\\' ? "\\%c" : "%c", *from);
    fputc('"', to);
}

static void json_sum(FILE *to, const held_sum *s)
{
    fprintf(to, "\"bytes\": %.0f, \"error_bytes\": %.0f, \"blocks\": %.0f, \"samples\": %zu", s->bytes, held_error(s), s->blocks, s->samples);
}

bool held_print_json(const held_report *r, FILE *to)
{
    fprintf(to, "{\"version\": \"%s\", \"pid\": %d, \"command\": ", PM_VERSION, (int)r->pid);
    json_string(to, r->command);
    fprintf(to, ", \"what\": ");
    json_string(to, r->what);
    fprintf(to, ", \"seconds\": %.3f, \"rate_bytes\": %zu, \"missed_bytes\": %zu, ", r->seconds, r->rate, r->missed);
    if (r->known >= 0)
        fprintf(to, "\"pools_used_bytes\": %.0f, ", r->known);
    json_sum(to, &r->look->total);
    fprintf(to, ", \"cut_stacks\": %zu, \"torn_samples\": %zu, \"stacks\": [", r->look->cut, r->look->torn);
    const char *between = "";
    for (size_t i = 0; i < r->look->count; i++) {
        const held_stack *s = r->held->stacks[i];
        if (r->look->sum[i].bytes < 0.5)
            continue;
        fprintf(to, "%s{", between);
        json_sum(to, &r->look->sum[i]);
        fprintf(to, ", \"frames\": [");
        for (size_t k = 0; k < s->depth; k++) {
            fputs(k ? ", " : "", to);
            json_string(to, name_of(r, s->names[k]));
        }
        fprintf(to, "]}");
        between = ", ";
    }
    fprintf(to, "]}\n");
    return fflush(to) == 0 && !ferror(to);
}
