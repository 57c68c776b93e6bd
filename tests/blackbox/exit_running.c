/* main returns while other threads still allocate, and exit handlers, destructors and late frees go on using the
 * allocator after its own exit hook. Argument: 0 main returns, 1 quick_exit,
 * 2 _exit, 3 main's thread ends first and another one calls exit. */
#define _GNU_SOURCE
#include "check.h"
#include "process.h"
#include "threads.h"

enum { THREADS = 4 };

static char *kept[1000];

static void *churn(void *unused)
{
    for (size_t i = 0;; i++)
        free(malloc(i % 40000 + 1));
    return unused;
}

static void *exit_from_thread(void *unused)
{
    sleep_ms(5);
    exit(unused != NULL);
}

static void use_allocator(void)
{
    for (size_t size = 1; size < 100000; size = size * 2 + 1) {
        char *block = calloc(1, size);
        CHECK(block != NULL && block[size - 1] == 0);
        CHECK((block = realloc(block, size / 2 + 1)) != NULL);
        free(block);
    }
}

static void free_kept(void)
{
    for (int i = 0; i < 1000; i++)
        free(kept[i]);
    use_allocator();
}

/* Runs after main's exit handlers, at about the time when shared objects run theirs. */
__attribute__((destructor)) static void last_words(void)
{
    use_allocator();
}

int main(int argc, char **argv)
{
    long how = argument(argc, argv, 1, 0);
    CHECK(atexit(free_kept) == 0 && at_quick_exit(free_kept) == 0);
    for (int i = 0; i < 1000; i++)
        CHECK((kept[i] = malloc((size_t)i * 40 + 1)) != NULL);
    for (int i = 0; i < THREADS; i++)
        thread_start(churn, NULL);
    sleep_ms(20);
    if (how == 1)
        quick_exit(0);
    if (how == 2)
        _exit(0);
    if (how == 3) {
        thread_start(exit_from_thread, NULL);
        pthread_exit(NULL);
    }
    return 0;
}
