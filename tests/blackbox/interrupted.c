/* A timer's handler that does not allocate interrupts the allocator at any point. Nothing changes.
 * Argument: interruptions. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/time.h>

#include "check.h"
#include "pattern.h"
#include "threads.h"

enum { SLOTS = 200 };

static volatile sig_atomic_t ticks;
static long wanted;

static void tick(int number)
{
    int saved = errno;
    ticks += number == SIGALRM;
    errno = saved;
}

static void *churn(void *context)
{
    Random random = {(size_t)context};
    struct { char *bytes; size_t size; } slots[SLOTS] = {{NULL, 0}};
    while (ticks < wanted)
        for (int i = 0; i < 1000; i++) {
            size_t at = random_below(&random, SLOTS);
            CHECK(slots[at].bytes == NULL || pattern_stamped(slots[at].bytes, slots[at].size, slots[at].size, at));
            slots[at].size = random_below(&random, random_below(&random, 30) ? 900 : 60000) + 1;
            CHECK((slots[at].bytes = realloc(slots[at].bytes, slots[at].size)) != NULL);
            pattern_stamp(slots[at].bytes, slots[at].size, at);
        }
    for (int i = 0; i < SLOTS; i++)
        free(slots[i].bytes);
    return NULL;
}

int main(int argc, char **argv)
{
    wanted = argument(argc, argv, 1, 8000);
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    struct itimerval every = {{0, 200}, {0, 200}};
    CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
    pthread_t other = thread_start(churn, (void *)1);
    churn((void *)2);
    thread_join(other);
    return 0;
}
