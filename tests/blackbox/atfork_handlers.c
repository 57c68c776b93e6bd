/* Sixty handlers that allocate before and after each fork, in the parent and in the child, while other threads
 * allocate too. More than 48 of them make pthread_atfork itself allocate. Argument: the number of forks. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "check.h"
#include "process.h"
#include "threads.h"

enum { HANDLERS = 60, THREADS = 4 };

static atomic_bool stop;
static char *held[HANDLERS];
static int held_count, ran;

static void use_allocator(size_t size)
{
    char *block = malloc(size);
    CHECK(block != NULL);
    memset(block, 1, size);
    CHECK((block = realloc(block, size * 3)) != NULL);
    free(block);
    ran++;
}

/* A block per handler that is made before the fork and freed after it, on both sides. */
static void prepare(void)
{
    use_allocator(100);
    CHECK((held[held_count % HANDLERS] = malloc(50000)) != NULL);
    held_count++;
}

static void after(void)
{
    use_allocator(2000);
    free(held[--held_count % HANDLERS]);
}

static void *churn(void *unused)
{
    for (size_t i = 0; !atomic_load(&stop); i++)
        free(malloc(i % 40000 + 1));
    return unused;
}

static void child_run(void)
{
    alarm(HANG_SECONDS);
    use_allocator(300);
    exit(held_count == 0 ? 0 : 2);
}

static void fork_once(void)
{
    child_succeeds(child_run);
    CHECK(held_count == 0);
}

/* Registered before main, thus before most libraries' own. */
__attribute__((constructor)) static void register_early(void)
{
    CHECK(pthread_atfork(prepare, after, after) == 0);
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    for (int i = 1; i < HANDLERS; i++)
        CHECK(pthread_atfork(prepare, after, after) == 0);
    for (int i = 0; i < THREADS; i++)
        threads[i] = thread_start(churn, NULL);
    for (long i = argument(argc, argv, 1, 200); i > 0; i--)
        fork_once();
    atomic_store(&stop, true);
    for (int i = 0; i < THREADS; i++)
        thread_join(threads[i]);
    CHECK(ran > HANDLERS);
    return 0;
}
