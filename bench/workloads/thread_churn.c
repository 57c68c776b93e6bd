/* thread_churn: threads that live for 200 pairs and leave a few blocks behind for their parent:
 * what a thread's first allocations and its end cost.
 * Sizes: 16 to 512 B, log-uniform; 16 of the blocks outlive their thread.
 * Idea: the thread-per-request server of larson, and jemalloc's thread_tcache tests. */
#include "common.h"

#include <pthread.h>

enum { PAIRS = 200, LEFT = 16 };

typedef struct request { uint64_t random; void *left[LEFT]; } request;

static void *request_serve(void *argument)
{
    request *r = argument;
    for (unsigned i = 0; i < PAIRS; i++) {
        void *block = block_new(random_size(&r->random, 16, 5));
        if (i < LEFT)
            r->left[i] = block;
        else
            free(block);
    }
    return NULL;
}

static void request_run(request *r)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, request_serve, r))
        bench_fail("cannot create a thread");
    pthread_join(thread, NULL);
    for (unsigned i = 0; i < LEFT; i++)
        free(r->left[i]);
}

static void run(worker *w)
{
    request r = {.random = w->random};
    for (; worker_grant(w, PAIRS); w->done += PAIRS)
        request_run(&r);
}

const workload bench_workload = {
    .name = "thread_churn", .purpose = "Short-lived threads that leave blocks behind.",
    .run = run, .allocations_per_operation = 1, .defaults = {.threads = 2, .operations = 2000000}};
