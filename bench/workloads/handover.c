/* handover: half of the threads make batches of 1000 blocks, the others free them: every block, and the list it comes in, dies far
 * from where it was born, a thousand at a time and many thousands on their way.
 * Size: 64 B unless told; a batch is 8 KB itself. At most 20 batches a thread wait in one queue, whose waiters sleep.
 * Idea: xmalloc-test (Lever and Boreham, USENIX 2000), with the large batches of a pipeline between threads. */
#include "common.h"

#include <pthread.h>

enum { BATCH = 1000, WAITING_MOST = 20 };

typedef struct batch {
    struct batch *next;
    unsigned count;
    void *block[BATCH];
} batch;

static struct {
    pthread_mutex_t lock;              /* guards all below */
    pthread_cond_t room, some;
    batch *first, **end;
    unsigned waiting, makers;          /* makers: those that have not finished */
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .room = PTHREAD_COND_INITIALIZER, .some = PTHREAD_COND_INITIALIZER,
           .end = &queue.first};
static pthread_once_t queue_once = PTHREAD_ONCE_INIT;

static unsigned makers_count(void)
{
    if (options.threads < 2)
        bench_fail("needs at least two threads");
    return options.threads / 2;
}

static void queue_init(void) { queue.makers = makers_count(); }

static void batch_put(batch *b)
{
    b->next = NULL;
    pthread_mutex_lock(&queue.lock);
    while (queue.waiting >= WAITING_MOST * options.threads)
        pthread_cond_wait(&queue.room, &queue.lock);
    *queue.end = b;
    queue.end = &b->next;
    queue.waiting++;
    pthread_cond_signal(&queue.some);
    pthread_mutex_unlock(&queue.lock);
}

/* NULL when all that was made is taken and no more will come. */
static batch *batch_take(void)
{
    pthread_mutex_lock(&queue.lock);
    while (!queue.first && queue.makers)
        pthread_cond_wait(&queue.some, &queue.lock);
    batch *b = queue.first;
    if (b) {
        queue.first = b->next;
        if (!queue.first)
            queue.end = &queue.first;
        queue.waiting--;
        pthread_cond_signal(&queue.room);
    }
    pthread_mutex_unlock(&queue.lock);
    return b;
}

static void maker_leave(void)
{
    pthread_mutex_lock(&queue.lock);
    queue.makers--;
    pthread_cond_broadcast(&queue.some);
    pthread_mutex_unlock(&queue.lock);
}

static void make(worker *w)
{
    for (uint64_t n; (n = worker_grant(w, BATCH)); w->done += n) {
        batch *b = block_new(sizeof *b);
        b->count = (unsigned)n;
        for (unsigned i = 0; i < b->count; i++)
            b->block[i] = block_new(options.size);
        batch_put(b);
    }
    maker_leave();
}

static void unmake(void)
{
    for (batch *b; (b = batch_take()); free(b))
        for (unsigned i = 0; i < b->count; i++)
            free(b->block[i]);
}

static void run(worker *w)
{
    pthread_once(&queue_once, queue_init);
    unsigned makers = makers_count();
    w->quota = w->id < makers ? share_of(options.operations, w->id, makers) : 0;
    if (w->id < makers)
        make(w);
    else
        unmake();
}

const workload bench_workload = {
    .name = "handover", .purpose = "Half of the threads make batches of blocks, the others free them.",
    .run = run, .allocations_per_operation = 1, .defaults = {.threads = 2, .operations = 3000000, .size = 64}};
