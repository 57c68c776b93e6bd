/* free and malloc after an allocator's own thread-exit hook has run: destructors of many keys that allocate, free
 * and set themselves again, with more than 32 keys made before the first allocation (a key beyond 32 makes the C
 * library allocate, in the thread, at its first setspecific). Nothing may be lost over thousands of threads. */
#include <stdint.h>

#include "check.h"
#include "pattern.h"
#include "process.h"
#include "threads.h"

enum { KEYS = 60, THREADS = 4000, ROUNDS = 4, SIZE = 700, GROWTH_KIB = 6144 };

static pthread_key_t keys[KEYS];
static long destroyed;

/* A key's value: a block that knows its key, and how often it has been set again. */
typedef struct { int key, rounds; char bytes[SIZE]; } Value;

static void value_set(int key, int rounds)
{
    Value *value = malloc(sizeof *value);
    CHECK(value != NULL);
    value->key = key;
    value->rounds = rounds;
    pattern_fill(value->bytes, SIZE, (uint64_t)key);
    CHECK(pthread_setspecific(keys[key], value) == 0);
}

/* At the last round the C library's iterations are used up: whatever an allocator does at thread exit is over. */
static void destructor(void *context)
{
    Value *value = context;
    CHECK(pattern_holds(value->bytes, SIZE, (uint64_t)value->key));
    int key = value->key, rounds = value->rounds;
    for (size_t size = 1; size < 60000; size = size * 3 + 1)
        free(malloc(size));
    void *grown = realloc(malloc(30), 3000);
    free(value);
    if (rounds + 1 < ROUNDS)
        value_set(key, rounds + 1);
    free(grown);
    __atomic_fetch_add(&destroyed, 1, __ATOMIC_RELAXED);
}

static void *use_keys(void *context)
{
    uintptr_t number = (uintptr_t)context;
    for (int key = 0; key < KEYS; key++)
        if ((key + (int)number) % 7 == 0)
            value_set(key, 0);
    return NULL;
}

/* A thread whose first allocation is the C library's own, for a key beyond the first 32. */
static void *set_high_key_only(void *unused)
{
    static Value value;
    CHECK(pthread_setspecific(keys[KEYS - 1], &value) == 0);
    CHECK(pthread_setspecific(keys[KEYS - 1], NULL) == 0);
    free(malloc(50));
    return unused;
}

static void threads_run(int count)
{
    for (int i = 0; i < count; i++) {
        pthread_t other = thread_start(set_high_key_only, NULL);
        thread_run(use_keys, (void *)(uintptr_t)i);
        thread_join(other);
    }
}

int main(void)
{
    for (int i = 0; i < KEYS; i++)
        CHECK(pthread_key_create(&keys[i], destructor) == 0);
    threads_run(THREADS / 10);
    long before = rss_kib();
    threads_run(THREADS);
    CHECK(destroyed >= (long)THREADS * (KEYS / 7) * ROUNDS);
    CHECKF(rss_kib() < before + GROWTH_KIB, "RSS grew from %ld to %ld KiB", before, rss_kib());
    return 0;
}
