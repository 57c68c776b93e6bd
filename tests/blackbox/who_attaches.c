/* who_attaches.c: asks a process to sample and lets go of it again, N times: who_attaches PID N. Fails when it cannot be read, or
 * never had a sample. */
#include "sampler.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static size_t samples;

static bool wanted(void *context, uint64_t number)
{
    (void)context;
    return number % 4 == 0;
}

static void take(void *context, const who_sample *s, const void *stack)
{
    (void)context;
    (void)stack;
    samples += s->size > 0;
}

int main(int argc, char **argv)
{
    static sampler s;
    pid_t pid = argc > 2 ? atoi(argv[1]) : 0;
    size_t torn = 0;
    for (int i = 0, n = argc > 2 ? atoi(argv[2]) : 0; i < n; i++) {
        sample_reader reader = {wanted, take, NULL, 0};
        live_result result = sampler_open(&s, pid, (size_t)1024 << i % 8);
        for (int looks = 0; result == LIVE_FOUND && looks < 2; looks++) {
            usleep((unsigned)(i % 5) * 300);
            result = sampler_read(&s, false, &reader);
        }
        if (result != LIVE_FOUND) {
            fprintf(stderr, "%d: attach %d: %s\n", (int)pid, i, live_explain(result));
            return 1;
        }
        torn += reader.torn;
        sampler_close(&s);
    }
    printf("%zu samples, %zu torn\n", samples, torn);
    return samples == 0;
}
