/* Holds known numbers of blocks of explicit pools, and an arena, for readers of statistics; waits for its stdin to end.
 * With an argument: that many pools more, of one name. Prints what pm_stats_get says of each pool as "name=used", a line each. */
#include <poolmalloc.h>

#include "check.h"
#include "threads.h"

enum { SIZE = 72, USED = 5000, GIVEN = 700 };

static pm_pool *pool;
static void *blocks[USED + GIVEN];

static void take(pm_pool *from, int count)
{
    for (int i = 0; i < count; i++)
        CHECK((blocks[i] = pm_pool_alloc(from)) != NULL);
}

/* Some stay in the bins of this thread's heap, and, with the thread, leave them. */
static void *give_some(void *unused)
{
    for (int i = USED; i < USED + GIVEN; i++)
        pm_pool_free(pool, blocks[i]);
    return unused;
}

static pm_pool *pool_make(const char *name, pm_sharing sharing)
{
    pm_pool_options options = {.struct_size = sizeof options, .name = name, .block_size = SIZE, .sharing = sharing};
    CHECK((pool = pm_pool_create(&options)) != NULL);
    return pool;
}

static void pool_hold(const char *name, pm_sharing sharing)
{
    take(pool_make(name, sharing), USED + GIVEN);
    if (sharing == PM_SHARING_NONE)
        give_some(NULL);
    else
        thread_run(give_some, NULL);
    CHECK((blocks[0] = pm_pool_alloc(pool)) != NULL); /* one more in use, and a bin that is not empty */
}

int main(int argc, char **argv)
{
    static pm_stats s = {.struct_size = sizeof s};
    char end;
    static char line[BUFSIZ];
    setvbuf(stdout, line, _IOFBF, sizeof line); /* a buffer of its own would count as used */
    pool_hold("nodes of threads", PM_SHARING_THREADS);
    pool_hold("locked \"quoted\" \\ \n", PM_SHARING_LOCKED);
    pool_hold("nobody's, cut within a letter \xc3\xa9", PM_SHARING_NONE);
    for (long i = argument(argc, argv, 1, 0); i > 0; i--)
        CHECK(pm_pool_alloc(pool_make("many", PM_SHARING_THREADS)) != NULL);
    pm_arena *arena = pm_arena_create(NULL, 0);
    for (int i = 0; i < 1000; i++)
        CHECK(pm_arena_alloc(arena, 1000, 0) != NULL);
    CHECK(pm_stats_get(&s) == 0);
    for (size_t i = 0; i < s.pools; i++)
        if (s.row[i].block_size == 80 && strncmp(s.row[i].name, "malloc", 6) != 0)
            printf("%zu ", s.row[i].used);
    printf("%zu\n", s.used_bytes);
    fflush(stdout);
    while (read(STDIN_FILENO, &end, 1) > 0)
        ;
    return 0;
}
