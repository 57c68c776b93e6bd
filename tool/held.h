/* held.h: what call stacks hold: samples put together. */
#pragma once

#include "sampler.h"
#include "unwind.h"

#include <stdio.h>

typedef enum { BY_STACK, BY_SIZE, BY_THREAD } held_by;

/* Names outermost first. */
typedef struct held_stack {
    uint32_t *names;
    size_t depth;
    uint32_t number;
} held_stack;

/* Scaled up from samples. */
typedef struct held_sum {
    double bytes, blocks, variance; /* of bytes: each sample may as well not have been one */
    size_t samples;
} held_sum;

/* One look: a sum for each stack. */
typedef struct held_look {
    held_sum *sum;
    size_t count;
    held_sum total;
    size_t cut, torn; /* samples whose stack could not be followed to its end; that made no sense */
} held_look;

/* A sample of the last look. */
typedef struct held_block {
    uint64_t block, size;
    uint32_t stack;
    uint64_t weight;
} held_block;

typedef struct held {
    unwinder *names;
    pid_t pid;
    held_by by;
    held_stack **stacks; /* by number */
    size_t stack_count, stack_room;
    void *by_names, *met; /* trees: of stacks; of samples whose stack is known, by their number */
    held_look *look; /* that is going on */
    held_block *blocks; /* of the last look */
    size_t block_count, block_room;
} held;

bool held_open(held *h, pid_t pid, held_by by, bool lines);
void held_close(held *h);
/* Takes one look; the caller frees look->sum. */
live_result held_take(held *h, sampler *s, bool all, held_look *look);
/* What came between two looks; what became less counts as nothing. */
void held_subtract(held_look *later, const held_look *earlier);
void held_add(held_look *look, const held_block *b);
double held_error(const held_sum *sum); /* two standard deviations, in bytes */

/* Stacks as a tree. */
typedef struct held_node {
    uint32_t name;
    held_sum sum; /* with all below */
    struct held_node *child, *sibling; /* largest first */
} held_node;
/* Its root has no name. Never NULL. */
held_node *held_tree(const held *h, const held_look *look);
void held_tree_free(held_node *root);

/* What is shown, in words: title and remarks. */
typedef struct held_report {
    const held *held;
    const held_look *look;
    const char *command; /* fit to be shown */
    pid_t pid;
    const char *what;    /* "allocated since we looked, and held", … */
    double seconds;
    size_t rate, missed;
    double known;        /* bytes in use by the pools' own count; below 0: not known */
    const char *const *remarks; /* ends with NULL */
} held_report;

bool held_print_tree(const held_report *r, FILE *to, double least); /* least: share of the whole below which nothing is shown */
bool held_print_folded(const held_report *r, FILE *to);
bool held_print_json(const held_report *r, FILE *to);
bool held_print_flame(const held_report *r, FILE *to);
bool held_write_pprof(const held_report *r, const char *path);
