/* pool_model.c: explicit pools of every sharing mode and policy against a shadow table, from several threads.
 * Usage: pool_model ROUNDS STEPS [check] [SEED]. In a round the threads take, fill, verify and give back blocks, whoever took them;
 * between rounds, while they stand still, a pool is counted, visited, reset, trimmed, ended and made anew, or the process
 * forks and the child goes on. Threads end and are replaced. Prints what was met; each thing must be. */
#include "start.h"
#include "ground/os.h"

#include <poolmalloc.h>

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4
#define POOLS 9
#define SLOTS 3000
#define BULK 40

typedef struct slot {
    os_lock lock;
    unsigned char *p, fill;
} slot;

static struct {
    pm_pool *pool;
    pm_pool_options made;
    size_t size;
    pthread_mutex_t one_at_a_time; /* NONE */
    slot slots[SLOTS];
} table[POOLS];

static pthread_barrier_t barrier;
static unsigned long rounds, round_number, seed;
static int steps_a_round;
static bool ending, checked;

#define EVENTS(X)                                                                                                      \
    X(remote_free) X(refused) X(forwarded) X(bulk) X(counted) X(visited) X(visit_freed) X(reset) X(trimmed) X(destroyed)    \
    X(demolished_in_use) X(forked) X(high_water) X(thread_end) X(buffered)
typedef struct events {
#define EVENT(name) unsigned long name;
    EVENTS(EVENT)
#undef EVENT
} events;
static events met;
#define MEET(name) __atomic_fetch_add(&met.name, 1, __ATOMIC_RELAXED)

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static void die(const char *what, int i)
{
    fprintf(stderr, "pool_model: %s: pool %d, round %lu, seed %lu\n", what, i, round_number, seed);
    abort();
}

/* Which thread filled a block is in the low bits of its fill: so a remote free is known for one. */
static void block_fill(unsigned char *p, size_t size, unsigned char fill) { memset(p, fill, size); }

static void block_verify(int i, const unsigned char *p, unsigned char fill)
{
    for (size_t b = 0; b < table[i].size; b++)
        if (p[b] != fill)
            die("content changed", i);
}

static void enter(int i)
{
    if (table[i].made.sharing == PM_SHARING_NONE)
        pthread_mutex_lock(&table[i].one_at_a_time);
}
static void leave(int i)
{
    if (table[i].made.sharing == PM_SHARING_NONE)
        pthread_mutex_unlock(&table[i].one_at_a_time);
}

static void on_mark(pm_pool *pool, void *context)
{
    (void)pool;
    (void)context;
    MEET(high_water);
}

static char buffer[POOLS][1 << 18];

static void pool_begin(int i, uint64_t r)
{
    pm_pool_options *o = &table[i].made;
    *o = (pm_pool_options){.struct_size = sizeof *o, .name = "model", .sharing = (pm_sharing)(i % 3)};
    o->block_size = r % 5 == 0 ? (r >> 8) % 20000 + 1 : (r >> 8) % 600 + 1;
    o->block_align = (size_t)8 << (r >> 24) % 4;
    o->max_blocks = i < 3 ? 0 : 150;
    o->overflow = i < 6 ? PM_OVERFLOW_GROW : PM_OVERFLOW_FORWARD;
    o->initial_blocks = (r >> 32) % 100;
    o->grow_blocks = (r >> 50) % 300;
    if ((r >> 40 & 1) || (round_number == 0 && i == 3)) { /* which NONE does without its hand for */
        o->high_water = 100;
        o->on_high_water = on_mark;
    }
    if ((r >> 41 & 3) == 0 || (round_number == 0 && i == 4)) {
        o->initial_blocks = 0;
        o->buffer = buffer[i];
        o->buffer_bytes = sizeof buffer[i];
        MEET(buffered);
    }
    table[i].pool = pm_pool_create(o);
    if (!table[i].pool)
        die("not created", i);
    pm_pool_stats s = {.struct_size = sizeof s};
    pm_pool_stats_get(table[i].pool, &s);
    table[i].size = s.block_size;
}

/* ---- one thread's steps ---- */

static void note_alloc(int i, const void *p)
{
    if (!p)
        MEET(refused);
    else if (!pm_pool_owns(table[i].pool, p))
        MEET(forwarded);
    if (p && (uintptr_t)p % table[i].made.block_align)
        die("misaligned", i);
    if (!p && table[i].made.overflow == PM_OVERFLOW_FORWARD)
        die("refused instead of forwarded", i);
}

static void slot_step(int i, slot *s, unsigned me, uint64_t r)
{
    if (!os_lock_try(&s->lock))
        return;
    enter(i);
    if (s->p) {
        block_verify(i, s->p, s->fill);
        if (s->fill % THREADS != me)
            MEET(remote_free);
        if (r >> 40 & 1 && pm_pool_of(s->p) == table[i].pool)
            free_block(s->p);
        else
            pm_pool_free(table[i].pool, s->p);
        s->p = NULL;
    } else {
        s->p = r >> 41 & 1 ? pm_pool_alloc(table[i].pool) : pm_pool_zalloc(table[i].pool);
        note_alloc(i, s->p);
        s->fill = (unsigned char)((r >> 48 & 0x3f) * THREADS + me);
        if (s->p)
            block_fill(s->p, table[i].size, s->fill);
    }
    leave(i);
    os_lock_give(&s->lock);
}

static void bulk_step(int i, uint64_t r)
{
    void *got[BULK];
    enter(i);
    size_t wanted = r % BULK + 1, n = pm_pool_alloc_bulk(table[i].pool, got, wanted);
    for (size_t k = 0; k < n; k++) {
        note_alloc(i, got[k]);
        block_fill(got[k], table[i].size, (unsigned char)k);
    }
    for (size_t k = 0; k < n; k++)
        block_verify(i, got[k], (unsigned char)k);
    pm_pool_free_bulk(table[i].pool, got, n);
    leave(i);
    MEET(bulk);
}

static void steps(unsigned me, uint64_t *random, int count)
{
    for (int n = 0; n < count; n++) {
        uint64_t r = next_random(random);
        int i = (int)(r % POOLS);
        if (r >> 8 & 63)
            slot_step(i, &table[i].slots[(r >> 16) % SLOTS], me, r);
        else
            bulk_step(i, r >> 16);
    }
}

/* ---- between rounds: all other threads stand still ---- */

static size_t live_count(int i)
{
    size_t n = 0;
    for (const slot *s = table[i].slots; s < table[i].slots + SLOTS; s++)
        n += s->p && pm_pool_owns(table[i].pool, s->p);
    return n;
}

static void count_check(int i)
{
    pm_pool_stats s = {.struct_size = sizeof s};
    pm_pool_stats_get(table[i].pool, &s);
    if (s.used != live_count(i) || s.high_water < s.used || (s.capacity < s.used))
        die("used is not what is in use", i);
    MEET(counted);
}

static size_t seen;
static void visit_count(void *p, void *context)
{
    int i = *(int *)context;
    if (!pm_pool_owns(table[i].pool, p))
        die("visited a stranger", i);
    seen++;
}

static void visit_all(int i)
{
    seen = 0;
    pm_pool_visit(table[i].pool, visit_count, &i);
    if (seen != live_count(i))
        die("visited more or fewer than there are", i);
    MEET(visited);
}

static void visit_free(void *p, void *context) { pm_pool_free(table[*(int *)context].pool, p); }

/* Forwarded blocks are the program's; the pool's own need not be given back one by one. */
static void slots_forget(int i)
{
    for (slot *s = table[i].slots; s < table[i].slots + SLOTS; s++) {
        if (s->p && !pm_pool_owns(table[i].pool, s->p))
            pm_pool_free(table[i].pool, s->p);
        s->p = NULL;
    }
}

static void slots_clear(int i)
{
    for (slot *s = table[i].slots; s < table[i].slots + SLOTS; s++)
        s->p = NULL;
}

static void free_by_visit(int i)
{
    for (slot *s = table[i].slots; s < table[i].slots + SLOTS; s++)
        if (s->p && !pm_pool_owns(table[i].pool, s->p)) {
            pm_pool_free(table[i].pool, s->p);
            s->p = NULL;
        }
    pm_pool_visit(table[i].pool, visit_free, &i);
    slots_clear(i);
    count_check(i);
    MEET(visit_freed);
}

static void reset(int i)
{
    slots_forget(i);
    pm_pool_reset(table[i].pool);
    count_check(i);
    MEET(reset);
}

static void replace(int i, uint64_t r)
{
    if (live_count(i))
        MEET(demolished_in_use);
    slots_forget(i);
    pm_pool_destroy(table[i].pool);
    pool_begin(i, r);
    MEET(destroyed);
}

static void fork_and_go_on(uint64_t random)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        steps(0, &random, steps_a_round);
        for (int i = 0; i < POOLS; i++)
            replace(i, next_random(&random));
        steps(0, &random, steps_a_round);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        die("the child failed", -1);
    MEET(forked);
}

/* What is done follows the round's number, to which pool is drawn: so a run of 64 rounds meets everything, whatever the seed:
 * one of the first pools has a mark, one a buffer. */
static void between(uint64_t *random)
{
    uint64_t r = next_random(random);
    int i = (int)(r % POOLS);
    switch (round_number % 16) {
    case 0: case 8: visit_all(i); break;
    case 2: free_by_visit(i); break;
    case 4: reset(i); break;
    case 6: case 14: replace(i, r >> 16); break;
    case 10: pm_pool_trim(table[i].pool); MEET(trimmed); break;
    case 12: pm_pool_high_water_reset(table[i].pool); break;
    case 15: if (round_number % 64 == 15) fork_and_go_on(r); break;
    default: count_check(i);
    }
    for (int each = 0; each < POOLS; each++)
        pool_check(table[each].pool);
    if (round_number % 64 == 0)
        pools_check();
}

static void *run(void *number)
{
    unsigned me = (unsigned)(size_t)number;
    uint64_t random = seed * 7919 + me * 104729 + round_number + 1;
    for (int life = 0; life < 20 + (int)me; life++) {
        steps(me, &random, steps_a_round);
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
            between(&random);
            ending = ++round_number >= rounds;
        }
        pthread_barrier_wait(&barrier);
        if (ending)
            return NULL;
    }
    return &barrier; /* replace me */
}

static void threads_run(void)
{
    pthread_t threads[THREADS];
    size_t alive = THREADS;
    for (size_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, run, (void *)i);
    for (size_t i = 0; alive > 0; i = (i + 1) % THREADS) {
        void *result;
        if (threads[i] == 0 || pthread_tryjoin_np(threads[i], &result) != 0) {
            usleep(200);
            continue;
        }
        MEET(thread_end);
        threads[i] = 0;
        if (result)
            pthread_create(&threads[i], NULL, run, (void *)i);
        else
            alive--;
    }
}

static bool report_met(void)
{
    bool all = true;
#define EVENT(name)                                                                                                    \
    printf("  %-18s %lu\n", #name, met.name);                                                                          \
    all = all && met.name > 0;
    EVENTS(EVENT)
#undef EVENT
    return all;
}

int main(int argc, char **argv)
{
    rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000;
    steps_a_round = argc > 2 ? atoi(argv[2]) : 2000;
    checked = argc > 3 && strcmp(argv[3], "check") == 0;
    seed = argc > 4 ? strtoul(argv[4], NULL, 10) : (unsigned long)getpid();
    pools_start((char *[]){checked ? "POOLMALLOC_CHECK=1" : NULL, NULL});
    printf("pool_model: %lu rounds, seed %lu%s\n", rounds, seed, checked ? ", checked" : "");
    fflush(stdout);
    uint64_t random = seed + 1;
    for (int i = 0; i < POOLS; i++) {
        pthread_mutex_init(&table[i].one_at_a_time, NULL);
        pool_begin(i, next_random(&random) >> 3);
    }
    pthread_barrier_init(&barrier, NULL, THREADS);
    threads_run();
    for (int i = 0; i < POOLS; i++) {
        slots_forget(i);
        pm_pool_destroy(table[i].pool);
    }
    pools_check();
    if (!report_met()) {
        printf("pool_model: not everything was met\n");
        return 1;
    }
    return 0;
}
