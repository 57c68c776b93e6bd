/* The model: threads call the whole family at random on one shared table that knows each block's size, alignment
 * and contents. Any thread may free or resize what any other made; threads end and others take their place.
 * Arguments: OPERATIONS THREADS SEED. Prints the seed and what happened; each kind must have happened. */
#define _GNU_SOURCE
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "check.h"
#include "pattern.h"
#include "process.h"
#include "threads.h"

enum { SLOTS = 1 << 15, THREADS_MOST = 64, LIFETIME = 200000, POOLED_MOST = 32768, LARGEST = 400000, SLACK_KIB = 32768, THREAD_KIB = 8192 };

/* One block, or none. `busy` is held by the one thread at work on the slot; the others pass by. */
typedef struct {
    atomic_bool busy;
    int maker; /* generation of the thread that made the block */
    char *bytes;
    size_t size, usable;
    uint64_t seed;
} Slot;

typedef enum { MADE, ZEROED, ALIGNED, RESIZED, FREED, FREED_ELSEWHERE, FREED_AFTER_EXIT, GREW_OUT, SHRANK_IN, REPLACED, KINDS } Kind;
static const char *const kind_names[KINDS] = {
    "malloc", "calloc", "aligned", "realloc", "free", "free by another thread", "free after the maker's exit",
    "realloc beyond the pools", "realloc into the pools", "thread replaced",
};

typedef struct {
    Random random;
    int generation; /* which thread this is, counted from 1 over the whole run */
    long left, done[KINDS];
} Worker;

static Slot slots[SLOTS];
static atomic_int generations, gone; /* all generations up to `gone` have ended */
static long totals[KINDS];

/* Mostly small, as programs do; one in 500 beyond any pool. */
static size_t draw_size(Random *random)
{
    size_t kind = random_below(random, 500);
    if (kind < 380)
        return random_below(random, 300);
    if (kind < 490)
        return random_below(random, 2500);
    return random_below(random, kind < 499 ? POOLED_MOST + 1000 : LARGEST);
}

static void slot_verify(const Slot *slot)
{
    CHECKF(malloc_usable_size(slot->bytes) == slot->usable, "usable size of a block of %zu changed", slot->size);
    CHECKF(pattern_stamped(slot->bytes, slot->size, slot->size, slot->seed), "contents of a block of %zu changed", slot->size);
}

static void slot_record(Slot *slot, char *bytes, size_t size, Worker *worker)
{
    CHECKF(bytes != NULL && (uintptr_t)bytes % 16 == 0, "bad block %p for %zu bytes", (void *)bytes, size);
    slot->bytes = bytes;
    slot->size = size;
    slot->usable = malloc_usable_size(bytes);
    slot->seed = random_next(&worker->random);
    slot->maker = worker->generation;
    CHECKF(slot->usable >= size, "usable size %zu of %zu", slot->usable, size);
    pattern_stamp(bytes, size, slot->seed);
}

static char *make_aligned(Worker *worker, size_t size)
{
    size_t alignment = (size_t)8 << random_below(&worker->random, 10);
    void *block = NULL;
    size_t which = random_below(&worker->random, 3);
    if (which == 0)
        CHECK(posix_memalign(&block, alignment, size) == 0);
    else
        block = which == 1 ? memalign(alignment, size) : aligned_alloc(alignment, size);
    CHECKF((uintptr_t)block % alignment == 0, "%p is not aligned to %zu", block, alignment);
    return block;
}

static void slot_make(Slot *slot, Worker *worker)
{
    size_t size = draw_size(&worker->random), which = random_below(&worker->random, 10);
    char *bytes;
    if (which < 2) {
        bytes = calloc(1, size);
        CHECKF(bytes != NULL && all_zero(bytes, size), "calloc(%zu) is not zero", size);
    } else {
        bytes = which < 3 ? make_aligned(worker, size) : malloc(size);
    }
    worker->done[which < 2 ? ZEROED : which < 3 ? ALIGNED : MADE]++;
    slot_record(slot, bytes, size, worker);
}

static void slot_resize(Slot *slot, Worker *worker)
{
    size_t size = draw_size(&worker->random) + 1, before = slot->size;
    char *bytes = realloc(slot->bytes, size);
    CHECK(bytes != NULL);
    CHECKF(pattern_stamped(bytes, before, size < before ? size : before, slot->seed), "realloc from %zu to %zu lost contents", before, size);
    worker->done[RESIZED]++;
    worker->done[GREW_OUT] += before <= POOLED_MOST && size > POOLED_MOST;
    worker->done[SHRANK_IN] += before > POOLED_MOST && size <= POOLED_MOST;
    slot_record(slot, bytes, size, worker);
}

static void slot_free(Slot *slot, Worker *worker)
{
    worker->done[FREED]++;
    worker->done[FREED_ELSEWHERE] += slot->maker != worker->generation;
    worker->done[FREED_AFTER_EXIT] += slot->maker <= atomic_load_explicit(&gone, memory_order_relaxed);
    free(slot->bytes);
    slot->bytes = NULL;
}

static void slot_step(Slot *slot, Worker *worker)
{
    if (slot->bytes == NULL) {
        slot_make(slot, worker);
        return;
    }
    slot_verify(slot);
    if (random_below(&worker->random, 8) == 0)
        slot_resize(slot, worker);
    else
        slot_free(slot, worker);
}

static void *worker_run(void *context)
{
    Worker *worker = context;
    while (worker->left > 0) {
        Slot *slot = &slots[random_below(&worker->random, SLOTS)];
        if (atomic_exchange_explicit(&slot->busy, true, memory_order_acquire))
            continue;
        slot_step(slot, worker);
        worker->left--;
        atomic_store_explicit(&slot->busy, false, memory_order_release);
    }
    return NULL;
}

static pthread_t worker_start(Worker *worker, long operations)
{
    memset(worker->done, 0, sizeof worker->done);
    worker->left = operations;
    worker->generation = atomic_fetch_add(&generations, 1) + 1;
    return thread_start(worker_run, worker);
}

static void worker_end(Worker *worker, pthread_t thread)
{
    thread_join(thread);
    atomic_store(&gone, worker->generation);
    for (int kind = 0; kind < KINDS; kind++)
        totals[kind] += worker->done[kind];
}

/* The workers in a ring: the oldest is joined and replaced until all operations are given out. */
static void run_all(long operations, int threads, uint64_t seed)
{
    static Worker workers[THREADS_MOST];
    pthread_t running[THREADS_MOST];
    for (int i = 0; i < threads; i++) {
        workers[i].random.state = seed * 1000 + (uint64_t)i;
        running[i] = worker_start(&workers[i], LIFETIME / (i + 1));
        operations -= LIFETIME / (i + 1);
    }
    int oldest = 0;
    for (; operations > 0; oldest = (oldest + 1) % threads) {
        worker_end(&workers[oldest], running[oldest]);
        running[oldest] = worker_start(&workers[oldest], LIFETIME);
        totals[REPLACED]++;
        operations -= LIFETIME;
    }
    for (int i = 0; i < threads; i++)
        worker_end(&workers[(oldest + i) % threads], running[(oldest + i) % threads]);
}

/* Freed blocks may wait somewhere for their owner, but not in numbers: beside what is alive, a thread may hold a
 * part-filled slab of each size and some blocks to reuse. */
static void memory_check(int threads)
{
    size_t alive = 0;
    for (int i = 0; i < SLOTS; i++)
        alive += slots[i].bytes != NULL ? slots[i].usable : 0;
    long rss = rss_kib(), most = (long)(alive / 1024 * 3) + SLACK_KIB + threads * THREAD_KIB;
    CHECKF(rss <= most, "RSS is %ld KiB for %zu KiB of blocks alive", rss, alive / 1024);
}

static void report(long operations, uint64_t seed, double seconds)
{
    printf("seed %lu: %ld operations in %.1f s, RSS %ld KiB\n", (unsigned long)seed, operations, seconds, rss_kib());
    for (int kind = 0; kind < KINDS; kind++)
        printf("  %-28s %ld\n", kind_names[kind], totals[kind]);
    for (int kind = 0; kind < KINDS; kind++)
        CHECKF(totals[kind] > 0, "no \"%s\" happened: the run proves too little", kind_names[kind]);
}

int main(int argc, char **argv)
{
    long operations = argument(argc, argv, 1, 10000000);
    int threads = (int)argument(argc, argv, 2, 4);
    uint64_t seed = (uint64_t)argument(argc, argv, 3, time(NULL) & 0xffffff);
    CHECK(threads > 1 && threads <= THREADS_MOST);
    printf("seed %lu\n", (unsigned long)seed);
    fflush(stdout); /* the seed of a run that crashes must be known */
    double start = seconds_now();
    run_all(operations, threads, seed);
    memory_check(threads);
    Worker last = {.random = {seed}, .generation = -1};
    for (int i = 0; i < SLOTS; i++)
        if (slots[i].bytes != NULL) {
            slot_verify(&slots[i]);
            slot_free(&slots[i], &last);
        }
    report(operations, seed, seconds_now() - start);
    return 0;
}
