/* Everything at once: threads that come and go, and forks, whose children go on: verify what they inherited, have threads of their own,
 * fork again. Any thread of any process frees or resizes what any other made; contents are verified at each step. Reports, trims and
 * checks come in between. Arguments: OPERATIONS SEED, OPERATIONS of the first process; its children do a part of that. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/wait.h>

#include "check.h"
#include "pattern.h"
#include "threads.h"

enum { SLOTS = 4096, THREADS = 5, DEPTH_MOST = 2, CHILDREN_LEAST = 3 };

typedef struct {
    atomic_bool busy; /* one thread is at work on it */
    char *bytes;
    size_t size;
    uint64_t seed;
} Slot;

static Slot slots[SLOTS];
static atomic_long left;      /* operations of this process */
static atomic_uint_fast64_t seeds;
static atomic_int children;   /* forked by this process */
static int depth;             /* of this process below the first one */
static void (*check_all)(void);
static void (*idle)(void);

/* Small ones mostly, and all that the pools have and more. */
static size_t draw_size(Random *random)
{
    size_t kind = random_below(random, 1000);
    size_t most = kind < 700 ? 512 : kind < 900 ? 4096 : kind < 980 ? 40000 : kind < 998 ? 400000 : 4 << 20;
    return random_below(random, most);
}

static void slot_fill(Slot *slot, char *bytes, size_t size, Random *random)
{
    CHECKF(bytes != NULL && (uintptr_t)bytes % 16 == 0 && malloc_usable_size(bytes) >= size, "bad block %p of %zu bytes", (void *)bytes, size);
    slot->size = size;
    slot->seed = random_next(random);
    pattern_stamp(bytes, size, slot->seed);
    slot->bytes = bytes;
}

static void slot_verify(const Slot *slot)
{
    CHECKF(pattern_stamped(slot->bytes, slot->size, slot->size, slot->seed), "contents of %p, %zu bytes, changed", (void *)slot->bytes,
           slot->size);
}

static void slot_make(Slot *slot, Random *random)
{
    size_t size = draw_size(random), align = (size_t)16 << random_below(random, 9);
    char *bytes = NULL;
    switch (random_below(random, 8)) {
    case 0:
        bytes = calloc(1, size);
        CHECKF(bytes != NULL && all_zero(bytes, size), "calloc(%zu) is not zero", size);
        break;
    case 1:
        CHECK(posix_memalign((void **)&bytes, align, size) == 0 && (uintptr_t)bytes % align == 0);
        break;
    default:
        bytes = malloc(size);
    }
    slot_fill(slot, bytes, size, random);
}

static void slot_resize(Slot *slot, Random *random)
{
    size_t before = slot->size, size = 1 + draw_size(random);
    char *bytes = realloc(slot->bytes, size);
    CHECK(bytes != NULL);
    CHECKF(pattern_stamped(bytes, before, size < before ? size : before, slot->seed), "realloc from %zu to %zu lost contents", before, size);
    slot_fill(slot, bytes, size, random);
}

static void slot_step(Slot *slot, Random *random)
{
    if (!slot->bytes) {
        slot_make(slot, random);
        return;
    }
    slot_verify(slot);
    if (random_below(random, 6) == 0) {
        slot_resize(slot, random);
        return;
    }
    free(slot->bytes);
    slot->bytes = NULL;
}

/* ---- what comes in between ---- */

static void processes_run(long operations);

/* Slots that other threads were at are as they left them: nobody touches them any more. */
static void child_run(Random *random)
{
    alarm(HANG_SECONDS);
    depth++;
    atomic_store(&children, 0);
    for (Slot *slot = slots; slot < slots + SLOTS; slot++)
        if (!slot->busy && slot->bytes)
            slot_verify(slot);
    atomic_store(&seeds, random_next(random));
    if (random_below(random, 2) == 0)
        processes_run(20000);
    for (Slot *slot = slots; slot < slots + SLOTS; slot++)
        if (!slot->busy && slot->bytes) {
            slot_verify(slot);
            free(slot->bytes);
        }
    malloc_trim(0);
    if (check_all)
        check_all();
    if (random_below(random, 2) == 0)
        exit(0);
    _exit(0);
}

static void fork_one(Random *random)
{
    int status;
    if (depth >= DEPTH_MOST)
        return;
    atomic_fetch_add(&children, 1);
    pid_t child = fork();
    CHECKF(child >= 0, "fork: %s", strerror(errno));
    if (child == 0)
        child_run(random);
    CHECK(waitpid(child, &status, 0) == child);
    CHECKF(status == 0, "child of depth %d ended with status %#x", depth + 1, (unsigned)status);
}

static void one_of_many(Random *random)
{
    struct mallinfo2 info;
    switch (random_below(random, 8)) {
    case 0:
        malloc_trim(0);
        break;
    case 1:
        info = mallinfo2();
        CHECK(info.uordblks > 0);
        break;
    case 2:
        if (check_all)
            check_all();
        break;
    case 3:
        if (idle)
            idle();
        break;
    case 4:
        sched_yield();
        break;
    default:
        fork_one(random);
    }
}

/* ---- threads ---- */

/* Slots in a row, forth or back, as programs free what they made together; or anywhere. */
static void *thread_work(void *unused)
{
    Random random = {atomic_fetch_add(&seeds, 1)};
    size_t rare = depth ? 4000 : 2000, at = 0, step = 0;
    for (long n = 1 + (long)random_below(&random, 20000); n > 0 && atomic_fetch_sub(&left, 1) > 0; n--) {
        if (n % 256 == 0)
            step = random_below(&random, 3);
        at = step == 2 ? random_below(&random, SLOTS) : (at + (step ? 1 : SLOTS - 1)) % SLOTS;
        Slot *slot = &slots[at];
        if (!atomic_exchange(&slot->busy, true)) {
            slot_step(slot, &random);
            atomic_store(&slot->busy, false);
        }
        if (random_below(&random, rare) == 0)
            one_of_many(&random);
    }
    return unused;
}

/* Keeps its threads at work, each of which ends after a while. */
static void *thread_keep(void *unused)
{
    while (atomic_load(&left) > 0)
        thread_run(thread_work, NULL);
    return unused;
}

static void processes_run(long operations)
{
    pthread_t threads[THREADS];
    int count = depth ? 2 : THREADS;
    atomic_store(&left, operations);
    for (int i = 0; i < count; i++)
        threads[i] = thread_start(thread_keep, NULL);
    for (int i = 0; i < count; i++)
        thread_join(threads[i]);
}

int main(int argc, char **argv)
{
    long operations = argument(argc, argv, 1, 300000);
    atomic_store(&seeds, (uint64_t)argument(argc, argv, 2, 1) * 1000003);
    *(void **)&check_all = dlsym(RTLD_DEFAULT, "pm_check");
    *(void **)&idle = dlsym(RTLD_DEFAULT, "pm_thread_idle");
    alarm(HANG_SECONDS);
    processes_run(operations);
    for (Slot *slot = slots; slot < slots + SLOTS; slot++)
        if (slot->bytes)
            slot_verify(slot);
    if (check_all)
        check_all();
    CHECKF(children >= CHILDREN_LEAST, "%d forks", (int)children);
    printf("%d forks\n", (int)children);
    return 0;
}
