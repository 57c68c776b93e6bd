/* realloc_growth: vectors that grow by half and strings that grow by a few bytes, 64 of them
 * interleaved so that the neighbour is usually taken; what was stored must survive.
 * Sizes: 16 B to 64 KiB (vectors, 2 in 3) or 2 KiB (strings). One operation is one realloc.
 * Idea: std::vector and string building; mimalloc-bench's "alloc-test" has no such pattern. */
#include "common.h"

enum { ARRAYS = 64, LINE = 64, VECTOR_MOST = 64 << 10, STRING_MOST = 2 << 10 };

typedef struct array { char *data; size_t size; } array;

static size_t size_next(unsigned index, size_t size, uint64_t *random)
{
    bool vector = index % 3 != 0;
    size_t next = vector ? size + size / 2 + 16 : size + 16 + (size_t)random_below(random, 48);
    return next > (vector ? VECTOR_MOST : STRING_MOST) ? 0 : next;
}

static void array_grow(array *a, unsigned index, uint64_t *random)
{
    size_t size = size_next(index, a->size, random);
    if (!size) {
        free(a->data);
        *a = (array){NULL, 0};
        return;
    }
    char *data = realloc(a->data, size);
    if (!data)
        bench_fail("out of memory");
    if (a->size && data[a->size - 1] != (char)index)
        bench_fail("realloc lost what was stored");
    for (size_t at = a->size; at < size; at += LINE) /* not by memset, whose instructions would count as the allocator's */
        data[at] = (char)index;
    data[size - 1] = (char)index;
    *a = (array){data, size};
}

static void run(worker *w)
{
    array arrays[ARRAYS] = {{NULL, 0}};
    for (uint64_t n; (n = worker_grant(w, 1024)); w->done += n)
        for (uint64_t i = 0; i < n; i++) {
            unsigned index = (unsigned)random_below(&w->random, ARRAYS);
            array_grow(&arrays[index], index, &w->random);
        }
    for (unsigned i = 0; i < ARRAYS; i++)
        free(arrays[i].data);
}

const workload bench_workload = {
    .name = "realloc_growth", .purpose = "Vectors and strings that grow by realloc.",
    .run = run, .allocations_per_operation = 1, .defaults = {.threads = 1, .operations = 1000000}};
