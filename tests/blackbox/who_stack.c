/* A thread that is sampled, and what lies behind its stack, which another thread closes and opens all the time: that is not read. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "check.h"
#include "process.h"
#include "threads.h"

enum { STACK = 65536, BEHIND = 65536, CLOSED_LEAST = 1000 };
static const double SECONDS = 1;

static atomic_bool ended;
static atomic_long closed;

static void *sampled(void *unused)
{
    for (double end = seconds_now() + SECONDS; seconds_now() < end || atomic_load(&closed) < CLOSED_LEAST;)
        for (int i = 0; i < 1000; i++)
            free(malloc(200));
    atomic_store(&ended, true);
    return unused;
}

static void *closes(void *behind)
{
    for (; !atomic_load(&ended); atomic_fetch_add(&closed, 1))
        CHECK(mprotect(behind, BEHIND, PROT_NONE) == 0 && mprotect(behind, BEHIND, PROT_READ | PROT_WRITE) == 0);
    return NULL;
}

int main(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    char *stack = mmap(NULL, STACK + BEHIND, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack != MAP_FAILED);
    alarm(HANG_SECONDS);
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstack(&attributes, stack, STACK) == 0);
    CHECK(pthread_create(&thread, &attributes, sampled, NULL) == 0);
    thread_run(closes, stack + STACK);
    thread_join(thread);
    return 0;
}
