/* model.c: random allocation, reallocation and release on several threads against a shadow table.
 * Usage: model OPERATIONS [check|limit|learn|learn-check] [SEED]. Every block carries its size and a pattern; threads end and are replaced,
 * free each other's blocks, and the process forks now and then. Prints what was met; each thing must be. */
#include "meet.h"
#include "pools/learn.h"
#include "start.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 4
#define SLOTS 4096  /* blocks of one thread's own */
#define SHARED 2048 /* blocks that any thread may free */
#define LIFE 50000  /* operations of a thread before another takes its place */

typedef struct slot {
    unsigned char *p;
    uint32_t size;
    unsigned char fill;
} slot;

static slot shared[SHARED];
static uint32_t shared_lock[SHARED];
static unsigned long operations, done, seed, refused, limited, drifts;

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static void die(const char *what, const slot *s)
{
    fprintf(stderr, "model: %s: block %p of %u bytes, seed %lu\n", what, (void *)s->p, s->size, seed);
    abort();
}

static void slot_fill(slot *s, uint64_t r)
{
    s->fill = (unsigned char)r;
    memset(s->p, s->fill, s->size);
}

static void slot_verify(const slot *s)
{
    for (uint32_t i = 0; i < s->size; i++)
        if (s->p[i] != s->fill)
            die("content changed", s);
    if (block_size_of(s->p) < s->size)
        die("block too small", s);
}

#define DRIFT 8000 /* operations, after which most requests are of another size */

/* Changes of sizes are bounded, but not here. */
static void learn_on(void)
{
    os_lock_take(&pm_learn.lock);
    pm_learn.changes = 0;
    os_lock_give(&pm_learn.lock);
}

static uint32_t size_random(uint64_t r)
{
    uint64_t turn = LOAD(&done) / DRIFT * 0x9E3779B97F4A7C15u;
    if (drifts && r % 8)
        return (uint32_t)(turn >> 40) % 24000 + 500;
    uint32_t top = 1u << (4 + r % 12);
    return (uint32_t)((r >> 8) % top) + 1;
}

static void slot_take(slot *s, uint64_t r)
{
    s->size = size_random(r);
    size_t align = (r >> 40) % 8 == 0 ? (size_t)16 << (r >> 44) % 6 : 16;
    unsigned klass = class_aligned(s->size, align);
    if (klass == CLASS_NONE) {
        klass = class_of(s->size);
        align = 16;
    }
    bool zeroed = (r >> 50) % 4 == 0;
    s->p = zeroed ? alloc_zeroed(klass, s->size) : alloc_slow(klass, s->size);
    if (!s->p) {
        __atomic_add_fetch(&refused, 1, __ATOMIC_RELAXED);
        return;
    }
    if ((uintptr_t)s->p % (limited ? 16 : align)) /* at the limit a larger class may serve */
        die("misaligned", s);
    for (uint32_t i = 0; zeroed && i < s->size; i++)
        if (s->p[i])
            die("calloc did not zero", s);
    slot_fill(s, r >> 32);
}

static void slot_release(slot *s)
{
    slot_verify(s);
    free_block(s->p);
    s->p = NULL;
}

static void slots_release(slot *s, int count)
{
    for (int i = 0; i < count; i++)
        if (s[i].p)
            slot_release(&s[i]);
}

static void slot_resize(slot *s, uint64_t r)
{
    slot old = *s;
    slot_take(s, r);
    if (s->p)
        memcpy(s->p, old.p, old.size < s->size ? old.size : s->size);
    if (s->p && s->p[0] != old.fill)
        die("lost in moving", s);
    if (s->p)
        slot_fill(s, r >> 24);
    slot_release(&old);
}

static void shared_swap(slot *mine, uint64_t r)
{
    uint64_t i = r % SHARED;
    if (__atomic_exchange_n(&shared_lock[i], 1, __ATOMIC_ACQUIRE))
        return;
    slot other = shared[i];
    shared[i] = *mine;
    *mine = other;
    __atomic_store_n(&shared_lock[i], 0, __ATOMIC_RELEASE);
}

static void step(slot *own, uint64_t r)
{
    slot *s = &own[(r >> 16) % SLOTS];
    unsigned what = r % 16;
    if (!s->p)
        slot_take(s, r * 0x9E3779B97F4A7C15u);
    else if (what < 9)
        slot_release(s);
    else if (what < 11)
        slot_resize(s, r * 0x9E3779B97F4A7C15u);
    else if (what < 15)
        shared_swap(s, r >> 32);
    else
        slot_verify(s);
}

/* The child goes on with what it has inherited, and frees all of it. */
static void fork_and_go_on(slot *own, uint64_t r)
{
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 2000; i++)
            step(own, next_random(&r));
        slots_release(own, SLOTS);
        pools_trim();
        _exit(0);
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        die("forked child failed", &own[0]);
}

static void *work(void *argument)
{
    uint64_t r = (uint64_t)(uintptr_t)argument * 0x2545F4914F6CDD1Du | 1;
    slot *own = calloc(SLOTS, sizeof *own);
    for (unsigned long i = 0; i < LIFE && LOAD(&done) < operations; i++) {
        step(own, next_random(&r));
        if (i % 1000 == 0)
            __atomic_add_fetch(&done, 1000, __ATOMIC_RELAXED);
    }
    slots_release(own, SLOTS);
    free(own);
    return NULL;
}

static void run_generations(void)
{
    uintptr_t next = (uintptr_t)seed;
    pthread_t t[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&t[i], NULL, work, (void *)next++);
    for (unsigned turn = 0; LOAD(&done) < operations; turn++) {
        learn_on();
        pthread_join(t[turn % THREADS], NULL);
        pthread_create(&t[turn % THREADS], NULL, work, (void *)next++);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
}

/* Forks while other threads allocate. */
static void *fork_among(void *unused)
{
    slot *own = calloc(SLOTS, sizeof *own);
    uint64_t r = seed | 1;
    for (int i = 0; i < 20 && LOAD(&done) < operations; i++) {
        for (int j = 0; j < 1000; j++)
            step(own, next_random(&r));
        fork_and_go_on(own, r);
        pools_trim();
        learn_on();
        usleep(2000);
    }
    slots_release(own, SLOTS);
    free(own);
    return unused;
}

#define BURST 80000 /* blocks of 320 bytes: more than the slabs that purging may not touch */
static void *burst_blocks[BURST];

/* With a limit more than there is. */
static void *burst(void *blocks)
{
    for (int i = 0; i < BURST; i++) {
        void *p = take_class(class_of(320));
        refused += p == NULL;
        ((void **)blocks)[i] = p;
    }
    return NULL;
}

/* All but one in `but`; 0: all that are left. */
static void burst_free(int but)
{
    for (int i = 0; i < BURST; i++)
        if (burst_blocks[i] && (but == 0 || i % but)) {
            free_block(burst_blocks[i]);
            burst_blocks[i] = NULL;
        }
}

/* Blocks of a thread that has gone come home, and its slabs, which a few keep, are taken over; then all is purged, and used again. */
static void adopt_from_the_gone(void)
{
    static void *adopted[2000];
    pthread_t t;
    free_block(take_class(0)); /* this thread has a heap, and does not get the other one's */
    pthread_create(&t, NULL, burst, burst_blocks);
    pthread_join(t, NULL);
    burst_free(64);
    thread_idle();
    for (int i = 0; i < 2000; i++)
        adopted[i] = take_class(class_of(320));
    for (int i = 0; i < 2000; i++)
        if (adopted[i])
            free_block(adopted[i]);
    burst_free(0);
    for (int round = 0; round < 2; round++) {
        burst(burst_blocks);
        burst_free(0);
        pools_trim();
    }
}

#define LEARNED (8 * MIB) /* of one size: worth a class of its own */

/* One size after the other is most of what is held, until each number of a class has been given to one, and some to another one. */
static void learn_many(void)
{
    for (int round = 0; round < 1000 && (!meetings_with("learn") || !meetings_with("unlearn")); round++) {
        size_t size = (size_t)(2100 + round * 7919 % 26011);
        learn_on();
        for (size_t i = 0; i < LEARNED / size; i++)
            burst_blocks[i] = alloc_slow(class_of(size), size);
        burst_free(0);
        pools_trim();
    }
}

static bool met(const char *what, uint64_t times)
{
    printf("  %-28s %lu%s\n", what, (unsigned long)times, times ? "" : "   <- never met");
    return times != 0;
}

static bool report_met(void)
{
    static const char *const ways[] = {"remote_flush", "strip", "slab_empty", "purge", "slab_reuse", "adopt",
                                        "splice_remote", "splice_chain", "chain_to_bits", "fall_ends", "comes_down",
                                        "handful", "slab_whole"};
    size_t n = pm_every_call_slow || limited ? 5 : drifts ? 12 : 13; /* bins keep nothing; at the limit little comes back to a slab */
    bool all = true;
    for (size_t i = 0; i < n; i++)
        all &= met(ways[i], meetings_with(ways[i]));
    if (drifts) {
        all &= met("learn", meetings_with("learn"));
        all &= met("unlearn", meetings_with("unlearn"));
    }
    if (limited) {
        all &= met("limit hit", pm_depot.limit_hits);
        all &= met("request refused", refused);
    }
    return all;
}

int main(int argc, char **argv)
{
    static char limit[] = "POOLMALLOC_LIMIT=12M", check[] = "POOLMALLOC_CHECK=1";
    char *settings[] = {NULL, NULL};
    const char *mode = argc > 2 ? argv[2] : "";
    operations = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000;
    seed = argc > 3 ? strtoul(argv[3], NULL, 10) : (unsigned long)time(NULL);
    limited = strcmp(mode, "limit") == 0;
    drifts = strncmp(mode, "learn", 5) == 0;
    settings[0] = limited ? limit : strstr(mode, "check") ? check : NULL;
    pools_start(settings);
    printf("model: %lu operations, %d threads, seed %lu %s\n", operations, THREADS, seed, mode);
    pthread_t forker;
    bool forks = !PM_SANITIZED; /* ThreadSanitizer's own runtime does not survive a fork of many threads */
    if (forks)
        pthread_create(&forker, NULL, fork_among, NULL);
    run_generations();
    if (forks)
        pthread_join(forker, NULL);
    slots_release(shared, SHARED);
    adopt_from_the_gone();
    if (drifts)
        learn_many();
    pools_trim();
    pools_check();
    pm_stats s;
    stats_copy(&s, sizeof s, true);
    printf("  %-28s %zu\n", "bytes in use at the end", s.used_bytes);
    return report_met() && s.used_bytes == 0 ? 0 : 1;
}
