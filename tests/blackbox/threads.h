/* Threads in one word each. A thread that cannot be made or joined fails the test. */
#pragma once

#include <pthread.h>

#include "check.h"

static inline pthread_t thread_start(void *(*run)(void *), void *context)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, run, context);
    CHECKF(error == 0, "pthread_create: %s", strerror(error));
    return thread;
}

static inline void thread_join(pthread_t thread)
{
    int error = pthread_join(thread, NULL);
    CHECKF(error == 0, "pthread_join: %s", strerror(error));
}

static inline void thread_run(void *(*run)(void *), void *context)
{
    thread_join(thread_start(run, context));
}
