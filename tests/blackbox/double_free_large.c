/* Frees a block a second time that is at hand, or has gone back to the next allocator. The script that runs this expects one line on stderr
 * and SIGABRT. Arguments: the size; how it is freed; what the program does then. */
#include <malloc.h>
#include <signal.h>
#include <sys/wait.h>

#include "check.h"
#include "threads.h"

enum { LIVE = 20, KEPT = 8 };

static size_t size;
static char *a, *b;

/* So many blocks go and come until they are kept. */
static void *keep(void *unused)
{
    void *blocks[KEPT];
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < KEPT; i++)
            CHECK((blocks[i] = malloc(size)) != NULL);
        for (int i = 0; i < KEPT; i++)
            free(blocks[i]);
    }
    return unused;
}

static void *free_one(void *p)
{
    free(p);
    return NULL;
}

/* In the order that a list of two would not show. */
static void free_twice(const char *how)
{
    free(a);
    if (strcmp(how, "written") == 0)
        memset(a, 0, size);
    free(b);
    if (strcmp(how, "thread") == 0)
        thread_run(free_one, a);
    else if (strcmp(how, "realloc") == 0)
        a = realloc(a, 2 * size);
    else
        free(a);
}

/* Nothing is kept yet: the C library's heap ends with it. */
static void free_again_when_gone(void)
{
    a = malloc(size);
    free(a);
    free(a);
}

static void use_all(void)
{
    for (int i = 0; i < LIVE; i++)
        CHECK(malloc(size) != NULL);
}

static void fork_and_trim(void)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        malloc_trim(0);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status))
        raise(WTERMSIG(status));
}

int main(int argc, char **argv)
{
    static void *live[LIVE];
    CHECK(argc == 4);
    size = strtoul(argv[1], NULL, 10);
    if (strcmp(argv[2], "gone") == 0)
        free_again_when_gone();
    for (int i = 0; i < LIVE; i++)
        CHECK((live[i] = malloc(size)) != NULL);
    keep(NULL);
    CHECK((a = malloc(size)) && (b = malloc(size)));
    free_twice(argv[2]);
    if (strcmp(argv[3], "malloc") == 0)
        use_all();
    else if (strcmp(argv[3], "fork") == 0)
        fork_and_trim();
    else if (strcmp(argv[3], "trim") == 0)
        malloc_trim(0);
    return 0;
}
