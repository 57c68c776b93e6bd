/* Producer and consumer: blocks made on one thread and freed on another, in both directions at once, with memory
 * bounded by what is under way. Argument: blocks to pass. */
#include <stdatomic.h>
#include <stdint.h>

#include "check.h"
#include "pattern.h"
#include "process.h"
#include "threads.h"

/* At most RING blocks of ~1 KiB on average are under way in each direction: 8 MiB in all. */
enum { RING = 4096, GROWTH_KIB = 24576 };

typedef struct {
    _Atomic(char *) blocks[RING];
    unsigned put, take;
    atomic_long passed;
} Ring;

typedef struct { Ring *in, *out; uint64_t seed; } Station;

static Ring rings[2];
static atomic_bool stop;

static size_t draw_size(Random *random)
{
    static const size_t bounds[] = {64, 64, 64, 256, 256, 1024, 4096, 8192};
    return 16 + random_below(random, bounds[random_below(random, 8)]);
}

static void produce(Ring *ring, Random *random)
{
    while (atomic_load_explicit(&ring->blocks[ring->put % RING], memory_order_acquire) == NULL) {
        size_t size = draw_size(random);
        char *block = malloc(size);
        CHECK(block != NULL);
        memcpy(block, &size, sizeof size);
        block[size - 1] = (char)size;
        atomic_store_explicit(&ring->blocks[ring->put++ % RING], block, memory_order_release);
        if (ring->put % 64 == 0)
            return;
    }
}

static void consume(Ring *ring)
{
    for (int i = 0; i < 64; i++) {
        char *block = atomic_load_explicit(&ring->blocks[ring->take % RING], memory_order_acquire);
        if (block == NULL)
            return;
        size_t size;
        memcpy(&size, block, sizeof size);
        CHECK(block[size - 1] == (char)size);
        free(block);
        atomic_store_explicit(&ring->blocks[ring->take++ % RING], NULL, memory_order_release);
        atomic_fetch_add_explicit(&ring->passed, 1, memory_order_relaxed);
    }
}

static void *station_run(void *context)
{
    Station *station = context;
    Random random = {station->seed};
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        produce(station->out, &random);
        consume(station->in);
    }
    return NULL;
}

/* Gives the highest RSS seen until `count` blocks have passed. */
static long passed_wait(long count)
{
    long highest = 0;
    do {
        sleep_ms(10);
        highest = rss_kib() > highest ? rss_kib() : highest;
    } while (rings[0].passed + rings[1].passed < count);
    return highest;
}

int main(int argc, char **argv)
{
    long blocks = argument(argc, argv, 1, 5000000);
    Station stations[2] = {{&rings[0], &rings[1], 1}, {&rings[1], &rings[0], 2}};
    pthread_t threads[2] = {thread_start(station_run, &stations[0]), thread_start(station_run, &stations[1])};
    long early = passed_wait(blocks / 5), highest = passed_wait(blocks);
    atomic_store(&stop, true);
    thread_join(threads[0]);
    thread_join(threads[1]);
    printf("RSS %ld KiB early, %ld at most\n", early, highest);
    CHECKF(highest < early + GROWTH_KIB, "RSS grew from %ld to %ld KiB", early, highest);
    return 0;
}
