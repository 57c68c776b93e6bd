/* producer_consumer: threads that only allocate hand blocks to threads that only free, 1:1, N:1, 1:N.
 * Sizes: 16 to 256 B, log-uniform. Blocks travel in parcels of 128 through one bounded queue whose
 * waiters sleep, so that neither spinning nor an unbounded queue is measured. The consumer writes
 * to each block, never reads it.
 * Idea: xmalloc-test (Lever and Boreham, USENIX 2000) and its descendants. */
#include "common.h"

#include <pthread.h>
#include <stdatomic.h>

enum { PARCEL = 128, QUEUE = 32 };

typedef struct parcel { unsigned count; void *block[PARCEL]; } parcel;

static struct {
    pthread_mutex_t lock;              /* guards all below */
    pthread_cond_t not_full, not_empty;
    unsigned head, length, producers;  /* producers: those that have not finished */
    parcel parcels[QUEUE];
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .not_full = PTHREAD_COND_INITIALIZER,
           .not_empty = PTHREAD_COND_INITIALIZER};
static pthread_once_t queue_once = PTHREAD_ONCE_INIT;

static unsigned producers_count(void)
{
    if (options.threads < 2)
        bench_fail("needs at least two threads");
    if (variant_is("n:1"))
        return options.threads - 1;
    return variant_is("1:n") ? 1 : options.threads / 2;
}

static void queue_init(void) { queue.producers = producers_count(); }

static void parcel_put(const parcel *p)
{
    pthread_mutex_lock(&queue.lock);
    while (queue.length == QUEUE)
        pthread_cond_wait(&queue.not_full, &queue.lock);
    queue.parcels[(queue.head + queue.length++) % QUEUE] = *p;
    pthread_cond_signal(&queue.not_empty);
    pthread_mutex_unlock(&queue.lock);
}

static bool parcel_take(parcel *p)
{
    pthread_mutex_lock(&queue.lock);
    while (!queue.length && queue.producers)
        pthread_cond_wait(&queue.not_empty, &queue.lock);
    bool taken = queue.length > 0;
    if (taken) {
        *p = queue.parcels[queue.head];
        queue.head = (queue.head + 1) % QUEUE, queue.length--;
        if (queue.length == QUEUE / 2) /* one waking for half a queue: less switching */
            pthread_cond_broadcast(&queue.not_full);
    }
    pthread_mutex_unlock(&queue.lock);
    return taken;
}

static void producer_leave(void)
{
    pthread_mutex_lock(&queue.lock);
    queue.producers--;
    pthread_cond_broadcast(&queue.not_empty);
    pthread_mutex_unlock(&queue.lock);
}

static void produce(worker *w)
{
    parcel p;
    for (uint64_t n; (n = worker_grant(w, PARCEL)); w->done += n) {
        p.count = (unsigned)n;
        for (unsigned i = 0; i < p.count; i++)
            p.block[i] = block_new(options.size ? options.size : random_size(&w->random, 16, 4));
        parcel_put(&p);
    }
    producer_leave();
}

static void consume(void)
{
    parcel p;
    while (parcel_take(&p))
        for (unsigned i = 0; i < p.count; i++) {
            block_write(p.block[i], 16);
            free(p.block[i]);
        }
}

static void run(worker *w)
{
    pthread_once(&queue_once, queue_init);
    unsigned producers = producers_count();
    w->quota = w->id < producers ? share_of(options.operations, w->id, producers) : 0;
    if (w->id < producers)
        produce(w);
    else
        consume();
}

static const char *const variants[] = {"1:1", "n:1", "1:n", NULL};
const workload bench_workload = {
    .name = "producer_consumer", .purpose = "Some threads only allocate, others only free.",
    .run = run, .allocations_per_operation = 1, .variants = variants,
    .defaults = {.threads = 2, .operations = 3000000}};
