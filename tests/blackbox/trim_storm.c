/* malloc_trim while other threads allocate, free each other's blocks and fork: the pages that go hold nothing, and what calloc
 * gives is zero. Arguments: forks, threads. */
#include <malloc.h>
#include <stdint.h>
#include <sys/wait.h>

#include "check.h"
#include "pattern.h"
#include "process.h"
#include "threads.h"

enum { SLOTS = 512, THREADS_MOST = 64 };

typedef struct { unsigned char *block; size_t size; uint64_t seed; } Slot;

static Slot slots[SLOTS];
static bool slot_taken[SLOTS], done;
static uint64_t swaps, trims;

/* Mostly small; one in eight large enough for calloc to take pages that were never used. */
static size_t size_draw(uint64_t r) { return r % 8 ? 16 + r / 8 % 1000 : 4096 + r / 8 % 28000; }

static Slot slot_make(uint64_t r)
{
    Slot s = {.size = size_draw(r), .seed = r};
    s.block = r >> 60 & 1 ? calloc(1, s.size) : malloc(s.size);
    CHECK(s.block != NULL);
    if (r >> 60 & 1)
        CHECK(all_zero(s.block, s.size));
    pattern_stamp(s.block, s.size, s.seed);
    return s;
}

static void slot_end(Slot s)
{
    if (s.block)
        CHECK(pattern_stamped(s.block, s.size, s.size, s.seed));
    free(s.block);
}

/* A block of mine for one of somebody's, which I free. */
static void swap(Random *random)
{
    size_t i = random_below(random, SLOTS);
    Slot mine = slot_make(random_next(random));
    if (__atomic_exchange_n(&slot_taken[i], true, __ATOMIC_ACQUIRE)) {
        slot_end(mine);
        return;
    }
    Slot other = slots[i];
    slots[i] = mine;
    __atomic_store_n(&slot_taken[i], false, __ATOMIC_RELEASE);
    slot_end(other);
}

/* Rises and falls of the thread's own, in random order, beside the swapping. */
static void *work(void *number)
{
    enum { OWN = 4000 };
    Random random = {(uintptr_t)number};
    Slot *own = calloc(OWN, sizeof *own);
    CHECK(own != NULL);
    while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
        for (int i = 0; i < OWN; i++) {
            size_t at = random_below(&random, OWN);
            slot_end(own[at]);
            own[at] = slot_make(random_next(&random));
            swap(&random);
        }
        for (int i = 0; i < OWN; i++) {
            size_t at = random_below(&random, OWN);
            slot_end(own[at]);
            own[at] = (Slot){NULL, 0, 0};
        }
        __atomic_add_fetch(&swaps, OWN, __ATOMIC_RELAXED);
    }
    for (int i = 0; i < OWN; i++)
        slot_end(own[i]);
    free(own);
    return NULL;
}

static void *trim(void *unused)
{
    while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
        malloc_trim(0);
        trims++;
        sleep_ms(1);
    }
    return unused;
}

static void fork_once(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        Random random = {(uint64_t)getpid()};
        for (int i = 0; i < 200; i++)
            slot_end(slot_make(random_next(&random)));
        malloc_trim(0);
        _exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(int argc, char **argv)
{
    long forks = argument(argc, argv, 1, 40), threads = argument(argc, argv, 2, 4);
    pthread_t all[THREADS_MOST + 1];
    CHECK(threads <= THREADS_MOST);
    for (long i = 0; i < threads; i++)
        all[i] = thread_start(work, (void *)(i + 1));
    all[threads] = thread_start(trim, NULL);
    for (long i = 0; i < forks || __atomic_load_n(&swaps, __ATOMIC_RELAXED) == 0; i++) {
        fork_once();
        sleep_ms(20);
    }
    __atomic_store_n(&done, true, __ATOMIC_RELAXED);
    for (long i = 0; i <= threads; i++)
        thread_join(all[i]);
    for (int i = 0; i < SLOTS; i++)
        slot_end(slots[i]);
    printf("%lu blocks swapped, %lu trims\n", (unsigned long)swaps, (unsigned long)trims);
    CHECK(trims > 0);
    return 0;
}
