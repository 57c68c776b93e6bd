/* Explicit pools in a real process: `use`, blocks that go back by plain free() and live through realloc, from several
 * threads and forks; `core`, the same without what needs the interposer; `misuse`, each kind of which must end a child
 * with a report of three lines and SIGABRT. Usage: explicit_pools use|core|misuse */
#include <malloc.h>
#include <poolmalloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>

#include "check.h"
#include "threads.h"

enum { BLOCKS = 5000 };

static void *blocks[BLOCKS];
static bool interposed;

static pm_pool *pool_of(size_t size, pm_sharing sharing)
{
    pm_pool_options o = {.struct_size = sizeof o, .name = "test", .block_size = size, .sharing = sharing};
    pm_pool *pool = pm_pool_create(&o);
    CHECK(pool != NULL);
    return pool;
}

static size_t used(pm_pool *pool)
{
    pm_pool_stats s = {.struct_size = sizeof s};
    pm_pool_stats_get(pool, &s);
    return s.used;
}

static void *free_all(void *pool)
{
    for (int i = 0; i < BLOCKS; i++) {
        if (interposed && i % 2)
            free(blocks[i]);
        else
            pm_pool_free(pool, blocks[i]);
    }
    return NULL;
}

static void fill(pm_pool *pool)
{
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = pm_pool_alloc(pool);
        CHECK(blocks[i] != NULL);
        memset(blocks[i], i, 100);
        free(malloc(100)); /* malloc's blocks and the pool's do not meet */
    }
    CHECKF(used(pool) == BLOCKS, "%zu of %d in use", used(pool), BLOCKS);
}

static void pools_are_used(pm_sharing sharing)
{
    pm_pool *pool = pool_of(100, sharing);
    fill(pool);
    free_all(pool);
    CHECK(used(pool) == 0);
    fill(pool);
    thread_run(free_all, pool);
    CHECK(used(pool) == 0);
    fill(pool);
    pid_t child = fork();
    if (child == 0) {
        free_all(pool);
        fill(pool);
        _exit(used(pool) == BLOCKS ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    pm_pool_reset(pool);
    CHECK(used(pool) == 0);
    pm_pool_destroy(pool);
}

static void blocks_are_blocks_of_malloc(void)
{
    pm_pool *pool = pool_of(100, PM_SHARING_THREADS);
    unsigned char *p = pm_pool_alloc(pool);
    CHECK(malloc_usable_size(p) == 112);
    memset(p, 7, 112);
    p = realloc(p, 5000);
    CHECK(p != NULL && !pm_pool_owns(pool, p) && used(pool) == 0);
    for (int i = 0; i < 112; i++)
        CHECK(p[i] == 7);
    free(p);
    pm_pool_destroy(pool);
}

/* Handlers that were there before the first pool use one, in the midst of each fork. */
static pm_pool *handlers_pool;

static void fork_handler(void)
{
    void *some[300];
    for (int i = 0; handlers_pool && i < 300; i++)
        CHECK((some[i] = pm_pool_alloc(handlers_pool)) != NULL);
    for (int i = 0; handlers_pool && i < 300; i++)
        pm_pool_free(handlers_pool, some[i]);
}

static void arenas_are_used(void)
{
    pm_arena *arena = pm_arena_create(NULL, 0);
    CHECK(arena != NULL);
    for (int i = 0; i < 100000; i++)
        CHECK(memset(pm_arena_alloc(arena, 40, 8), i, 40) != NULL);
    CHECK(pm_pool_of(pm_arena_alloc(arena, 1, 1)) == NULL);
    pm_arena_destroy(arena);
}

/* ---- misuse ---- */

static pm_pool *first, *second;

static void free_of_another_pool(void) { pm_pool_free(first, pm_pool_alloc(second)); }
static void free_of_malloc_s(void) { pm_pool_free(first, malloc(100)); }
static void free_of_the_stack_s(void)
{
    char local[200];
    pm_pool_free(first, opaque_pointer(local));
}
static void free_of_an_interior(void) { pm_pool_free(first, (char *)pm_pool_alloc(first) + 16); }
static void plain_free_of_an_interior(void) { free((char *)pm_pool_alloc(first) + 16); }
static void free_twice(void)
{
    void *p = pm_pool_alloc(first);
    pm_pool_free(first, p);
    pm_pool_free(first, opaque_pointer(p));
}
static void bulk_twice(void)
{
    void *p[2] = {pm_pool_alloc(first), NULL};
    p[1] = p[0];
    pm_pool_free_bulk(first, p, 2);
}
static void free_of_an_arena_s(void) { free(pm_arena_alloc(pm_arena_create(NULL, 0), 100, 16)); }
static void free_of_the_pool(void) { free(first); }
static void free_to_no_pool(void) { pm_pool_free(NULL, pm_pool_alloc(first)); }
static void alloc_of_an_ended_pool(void)
{
    pm_pool_destroy(second);
    pm_pool_alloc(second);
}
static void free_to_an_ended_pool(void)
{
    void *p = pm_pool_alloc(second);
    pm_pool_destroy(second);
    pm_pool_free(second, p);
}
static void end_twice(void)
{
    pm_pool_destroy(second);
    pm_pool_destroy(second);
}
/* One byte past the end of a piece, with others around it: seen by whatever gives it back. */
static pm_arena *arena_written(pm_arena *arena, size_t size, pm_arena_mark *before)
{
    CHECK(pm_arena_alloc(arena, size, 8) != NULL);
    *before = pm_arena_save(arena);
    char *p = pm_arena_alloc(arena, size, 1);
    memset(p, 'A', size);
    CHECK(pm_arena_alloc(arena, 2 * size, 64) != NULL);
    p[size] = 0;
    return arena;
}
static void reset_of_a_written_arena(void)
{
    pm_arena_mark mark;
    pm_arena_reset(arena_written(pm_arena_create(NULL, 0), 13, &mark));
}
static void end_of_a_written_arena(void)
{
    pm_arena_mark mark;
    pm_arena_destroy(arena_written(pm_arena_create(NULL, 0), 200000, &mark));
}
static void rewind_of_a_written_arena(void)
{
    pm_arena_mark mark;
    pm_arena *arena = arena_written(pm_arena_create(NULL, 0), 100, &mark);
    pm_arena_rewind(arena, mark);
}
static void end_of_a_written_sub_arena_s_parent(void)
{
    pm_arena *parent = pm_arena_create(NULL, 0);
    pm_arena_options o = {.struct_size = sizeof o, .parent = parent, .chunk_bytes = 4096};
    pm_arena_mark mark;
    arena_written(pm_arena_create_with(&o), 100, &mark);
    pm_arena_destroy(parent);
}

static void rewind_to_a_void_mark(void)
{
    pm_arena *arena = pm_arena_create(NULL, 0);
    pm_arena_mark early = pm_arena_save(arena);
    CHECK(pm_arena_alloc(arena, 100, 16) != NULL);
    pm_arena_mark late = pm_arena_save(arena);
    pm_arena_rewind(arena, early);
    pm_arena_rewind(arena, early);
    pm_arena_rewind(arena, late);
}
static void rewind_to_a_chunk_beyond(void)
{
    pm_arena *arena = pm_arena_create(NULL, 0);
    pm_arena_mark early = pm_arena_save(arena);
    CHECK(pm_arena_alloc(arena, 1000000, 16) != NULL);
    pm_arena_mark late = pm_arena_save(arena);
    pm_arena_rewind(arena, early);
    pm_arena_rewind(arena, late);
}
static void rewind_of_another_arena(void)
{
    static char buffer[1000];
    pm_arena_rewind(pm_arena_create(NULL, 0), pm_arena_save(pm_arena_create(buffer, sizeof buffer)));
}
static void end_of_no_arena(void)
{
    static char nothing[512];
    pm_arena_destroy((pm_arena *)(void *)nothing);
}
static void end_an_arena_twice(void)
{
    pm_arena *arena = pm_arena_create(NULL, 0);
    pm_arena_destroy(arena);
    pm_arena_destroy(arena);
}

static void ends_with_report(const char *name, void (*misuse)(void))
{
    int pipes[2], status;
    char text[2000];
    CHECK(pipe(pipes) == 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], STDERR_FILENO);
        misuse();
        _exit(0);
    }
    close(pipes[1]);
    size_t n = 0;
    for (ssize_t got; n < sizeof text - 1 && (got = read(pipes[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = 0;
    close(pipes[0]);
    CHECK(waitpid(child, &status, 0) == child);
    CHECKF(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%s: status %x", name, status);
    size_t lines = 0;
    for (const char *line = text; strncmp(line, "poolmalloc: ", 12) == 0 && strchr(line, '\n'); line = strchr(line, '\n') + 1)
        lines++;
    CHECKF(lines == 3 && text[n - 1] == '\n' && strstr(text, "\npoolmalloc: thread "), "%s: said «%s»", name, text);
    CHECKF(strstr(text, "pm_") || strncmp(name, "plain", 5) == 0 || strncmp(name, "free_of_", 8) == 0, "%s: said «%s»", name, text);
}

static void misuses_are_reported(void)
{
    first = pool_of(64, PM_SHARING_THREADS);
    second = pool_of(64, PM_SHARING_THREADS);
#define ENDS(misuse) ends_with_report(#misuse, misuse)
    ENDS(reset_of_a_written_arena);
    ENDS(end_of_a_written_arena);
    ENDS(rewind_of_a_written_arena);
    ENDS(end_of_a_written_sub_arena_s_parent);
    ENDS(free_of_another_pool);
    ENDS(free_of_malloc_s);
    ENDS(free_of_the_stack_s);
    ENDS(free_of_an_interior);
    ENDS(plain_free_of_an_interior);
    ENDS(free_twice);
    ENDS(bulk_twice);
    ENDS(free_of_an_arena_s);
    ENDS(free_of_the_pool);
    ENDS(free_to_no_pool);
    for (int sharing = PM_SHARING_THREADS; sharing <= PM_SHARING_NONE; sharing++) {
        second = pool_of(64, (pm_sharing)sharing);
        ENDS(alloc_of_an_ended_pool);
        ENDS(free_to_an_ended_pool);
        ENDS(end_twice);
    }
    second = pool_of(64, PM_SHARING_THREADS);
    ENDS(rewind_to_a_void_mark);
    ENDS(rewind_to_a_chunk_beyond);
    ENDS(rewind_of_another_arena);
    ENDS(end_of_no_arena);
    ENDS(end_an_arena_twice);
    first = pool_of(64, PM_SHARING_LOCKED);
    ENDS(free_twice);
    ENDS(free_of_another_pool);
    first = pool_of(64, PM_SHARING_NONE);
    ENDS(free_twice);
    ENDS(free_of_an_interior);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    if (strcmp(argv[1], "misuse") == 0) {
        misuses_are_reported();
        return 0;
    }
    interposed = strcmp(argv[1], "use") == 0;
    CHECK(pthread_atfork(fork_handler, fork_handler, fork_handler) == 0);
    handlers_pool = pool_of(64, PM_SHARING_LOCKED);
    for (int sharing = PM_SHARING_THREADS; sharing <= PM_SHARING_NONE; sharing++)
        pools_are_used((pm_sharing)sharing);
    arenas_are_used();
    if (interposed)
        blocks_are_blocks_of_malloc();
    pm_check();
    return 0;
}
