/* kernel.c: the kernel refuses the n-th call that the pools make, once, or that one and all after it; for n = 1, 2, … until no call
 * is refused any more. Each time in a process of its own, which starts the pools and uses all of them: nothing may crash, hang or be
 * lost. What cannot be had is NULL.
 * Arguments: settings. */
#include "../unit/start.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 1500, CALLS_MOST = 3000, HANG_SECONDS = 1000 };

/* ---- what is refused ---- */

static struct {
    unsigned calls, nth;
    bool on; /* and all after it */
} *fault; /* shared with the children of a fork */

static bool refused(void)
{
    unsigned call = __atomic_add_fetch(&fault->calls, 1, __ATOMIC_RELAXED);
    return fault->nth && (fault->on ? call >= fault->nth : call == fault->nth);
}

#define REFUSABLE(type, name, parameters, arguments, otherwise) \
    type __wrap_##name parameters; \
    type __real_##name parameters; \
    type __wrap_##name parameters { return refused() ? (otherwise) : __real_##name arguments; }
REFUSABLE(bool, os_map_at, (void *at, size_t bytes), (at, bytes), false)
REFUSABLE(void *, os_reserve, (size_t bytes), (bytes), NULL)
REFUSABLE(bool, os_commit, (void *at, size_t bytes), (at, bytes), false)
REFUSABLE(bool, os_purge, (void *at, size_t bytes), (at, bytes), false)
REFUSABLE(bool, os_mlock, (void *at, size_t bytes), (at, bytes), false)
REFUSABLE(uint64_t, os_now_ms, (void), (), 0)
REFUSABLE(size_t, os_resident, (void *at, size_t bytes), (at, bytes), 0)
REFUSABLE(int, pthread_key_create, (pthread_key_t *key, void (*end)(void *)), (key, end), EAGAIN)

/* ---- what is used ---- */

#define MUST(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "faults: call %u%s refused: line %d: %s\n", fault->nth, fault->on ? " and later ones" : "", __LINE__, #condition); \
            _exit(1); \
        } \
    } while (0)

static unsigned char *blocks[BLOCKS];

static size_t size_of(size_t i) { return 16 + i * 37 % 2000 + (i % 50 == 0 ? 30000 : 0); }

static void blocks_take(size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        unsigned klass = class_of(size_of(i));
        blocks[i] = klass == CLASS_NONE ? NULL : i % 3 ? take_class(klass) : take_zeroed(klass);
        if (!blocks[i])
            continue;
        MUST(i % 3 || (blocks[i][0] == 0 && memcmp(blocks[i], blocks[i] + 1, size_of(i) - 1) == 0));
        memset(blocks[i], (int)(i % 251 + 1), size_of(i));
    }
}

static void block_end(size_t i)
{
    if (!blocks[i])
        return;
    MUST(blocks[i][0] == i % 251 + 1 && memcmp(blocks[i], blocks[i] + 1, size_of(i) - 1) == 0);
    free_block(blocks[i]);
    blocks[i] = NULL;
}

static void *other_thread(void *unused)
{
    for (size_t i = 0; i < BLOCKS / 2; i += 2)
        block_end(i);
    blocks_take(BLOCKS / 2, BLOCKS);
    return unused;
}

static void pools_use(void)
{
    for (int k = PM_SHARING_THREADS; k <= PM_SHARING_NONE; k++) {
        pm_pool_options options = {.struct_size = sizeof options, .block_size = 3000, .initial_blocks = 50, .sharing = (pm_sharing)k};
        pm_pool *pool = pm_pool_create(&options);
        unsigned char *some[100];
        if (!pool) {
            MUST(errno == ENOMEM);
            continue;
        }
        for (int i = 0; i < 100; i++)
            if ((some[i] = pm_pool_alloc(pool)) != NULL)
                memset(some[i], i + 1, 3000);
        for (int i = 0; i < 100; i++) {
            MUST(!some[i] || (some[i][0] == i + 1 && some[i][2999] == i + 1));
            pm_pool_free(pool, some[i]);
        }
        pm_pool_destroy(pool);
    }
}

static void arenas_use(void)
{
    pm_arena *arena = pm_arena_create(NULL, 100000);
    for (int i = 0; arena && i < 300; i++) {
        void *p = pm_arena_alloc(arena, 1000, 0);
        if (p)
            memset(p, 1, 1000);
    }
    pm_arena_destroy(arena);
}

static void child_use(void)
{
    alarm(HANG_SECONDS);
    for (size_t i = 0; i < BLOCKS; i += 5)
        block_end(i);
    blocks_take(0, BLOCKS / 10);
    pm_check();
    _exit(0);
}

static void fork_use(void)
{
    int status;
    pid_t child = fork();
    MUST(child >= 0);
    if (child == 0)
        child_use();
    MUST(waitpid(child, &status, 0) == child && status == 0);
}

static int use_all(char *const *settings)
{
    pthread_t thread;
    if (config_load(&pm_config, settings, NULL))
        return 1;
    if (!pools_init())
        return 0; /* none: everything is forwarded */
    classes_align();
    blocks_take(0, BLOCKS / 2);
    MUST(pthread_create(&thread, NULL, other_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);
    pm_check();
    pools_use();
    arenas_use();
    fork_use();
    for (size_t i = 0; i < BLOCKS; i++)
        block_end(i);
    pm_check();
    pm_trim();
    MUST(pm_stats_print(open("/dev/null", O_WRONLY), PM_FORMAT_TEXT) == 0);
    blocks_take(0, BLOCKS);
    for (size_t i = BLOCKS; i-- > 0;)
        block_end(i);
    pm_check();
    return 0;
}

/* ---- n = 1, 2, … ---- */

/* How many calls were made; 0: it went wrong. */
static unsigned run(unsigned nth, bool on, char *const *settings)
{
    int status = -1;
    fault->calls = 0;
    fault->nth = nth;
    fault->on = on;
    pid_t child = fork();
    if (child == 0) {
        alarm(HANG_SECONDS);
        _exit(use_all(settings));
    }
    if (child > 0 && waitpid(child, &status, 0) == child && status == 0)
        return fault->calls + 1;
    fprintf(stderr, "faults: call %u%s refused: status 0x%x\n", nth, on ? " and later ones" : "", (unsigned)status);
    return 0;
}

int main(int argc, char **argv)
{
    (void)argc;
    unsigned failures = 0, nth = 1, calls = 0;
    fault = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fault == MAP_FAILED)
        return 1;
    for (int on = 0; on < 2; on++)
        for (nth = 1, calls = nth; calls >= nth && nth < CALLS_MOST; nth++) {
            calls = run(nth, on, argv + 1);
            failures += calls == 0;
            calls = calls ? calls : nth;
        }
    printf("%u calls refused, one at a time and from each on: %u failures\n", nth, failures);
    return failures > 0 || calls == 0;
}
