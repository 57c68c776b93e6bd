/* Handlers of fork that allocate, of a library that is ready before most others. */
#include <pthread.h>
#include <stdlib.h>

int early_calls(void);

static int calls;

static void allocate(void)
{
    static void *held;
    void *now = malloc(64), *large = malloc(30000);
    calls += now && large;
    free(held);
    free(large);
    held = now;
}

__attribute__((constructor)) static void at_load(void) { pthread_atfork(allocate, allocate, allocate); }

int early_calls(void) { return calls; }
