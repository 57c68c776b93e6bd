/* tree: builds and tears down binary trees and walks others in between: locality of what was
 * allocated together, among survivors of different age.
 * Sizes: 32 to 96 B in steps of 16; 8 trees of 4095 nodes live per thread, but about 16 in all, so that
 * more threads do not mean a larger live set. A walk reads every node.
 * Idea: GCBench (Ellis, Kovac, Boehm) and binary-trees of the Computer Language Benchmarks Game. */
#include "common.h"

enum { TREES = 8, TREES_ALL = 16, DEPTH = 12, NODES = (1 << DEPTH) - 1, WALKS = 2 };

typedef struct node { struct node *left, *right; uint64_t value; } node;

static node *tree_build(unsigned depth, uint64_t *random)
{
    if (!depth)
        return NULL;
    size_t size = options.size ? options.size : 32 + 16 * (size_t)random_below(random, 5);
    node *n = block_new(size < sizeof *n ? sizeof *n : size);
    n->value = depth;
    n->left = tree_build(depth - 1, random);
    n->right = tree_build(depth - 1, random);
    return n;
}

static uint64_t tree_sum(const node *n)
{
    return n ? n->value + tree_sum(n->left) + tree_sum(n->right) : 0;
}

static void tree_free(node *n)
{
    if (!n)
        return;
    tree_free(n->left);
    tree_free(n->right);
    free(n);
}

static void run(worker *w)
{
    node *trees[TREES] = {NULL};
    unsigned share = TREES_ALL / options.threads, count = share > TREES ? TREES : share ? share : 1;
    const uint64_t expected = (2 << DEPTH) - DEPTH - 2; /* sum of (DEPTH - level) over all nodes */
    while (worker_grant(w, NODES)) {
        node **chosen = &trees[random_below(&w->random, count)];
        tree_free(*chosen);
        *chosen = tree_build(DEPTH, &w->random);
        for (unsigned i = 0; i < WALKS; i++) {
            const node *other = trees[random_below(&w->random, count)];
            if (other && tree_sum(other) != expected)
                bench_fail("a tree changed");
        }
        w->done += NODES;
    }
    for (unsigned i = 0; i < count; i++)
        tree_free(trees[i]);
}

const workload bench_workload = {
    .name = "tree", .purpose = "Binary trees built, walked and torn down.",
    .run = run, .allocations_per_operation = 1, .defaults = {.threads = 1, .operations = 3000000}};
