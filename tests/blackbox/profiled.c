/* Known numbers of requests of sizes that nothing else here asks for: profiled MODE. profile.py knows what they come
 * to. */
#include "check.h"
#include "threads.h"

#include <dlfcn.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *take(size_t size, int n)
{
    static void *list[10000];
    for (int i = 0; i < n; i++) {
        list[i] = malloc(size);
        CHECK(list[i] != NULL);
    }
    return list;
}

static void give(int n)
{
    void **list = take(0, 0);
    for (int i = 0; i < n; i++)
        free(list[i]);
}

/* 3000 at the peak, 1000 in the end, of 9001 bytes; 50 beyond the pools, 20 of which stay. */
static void plain(void)
{
    take(9001, 3000);
    give(2000);
    take(70001, 50);
    give(30);
}

/* Of 9001 bytes 100 before the peak, 20 at it, 220 after it. */
static void holes(void)
{
    take(9001, 100);
    give(80);
    take(30001, 300);
    give(300);
    take(9001, 200);
}

static void family(void)
{
    void *p, *(*new)(size_t);
    CHECK(calloc(3, 5000) != NULL);
    CHECK(aligned_alloc(64, 11008) != NULL);
    CHECK(posix_memalign(&p, 256, 12032) == 0);
    CHECK(memalign(32, 13001) != NULL);
    CHECK(malloc(65536) != NULL);
    *(void **)&new = dlsym(RTLD_DEFAULT, "_Znwm");
    CHECK(new (14001) != NULL);
    CHECK(strdup("") != NULL);
}

/* In place, moved, to and from what the pools do not serve, and freed by it. */
static void reallocs(void)
{
    char *p = realloc(NULL, 20001);
    p = realloc(p, 19001); /* the block is large enough, and more than half of it is used */
    p = realloc(p, 60001);
    p = realloc(p, 200001);
    p = realloc(p, 300001);
    p = realloc(p, 21001);
    char *q = malloc(22001);
    CHECK(p != NULL && q != NULL && realloc(q, 0) == NULL);
}

static void *thread_takes(void *unused)
{
    (void)unused;
    for (int round = 0; round < 100; round++) {
        void *block[30];
        for (int i = 0; i < 30; i++)
            block[i] = malloc(9001);
        for (int i = 0; i < 29; i++)
            free(block[i]);
    }
    return NULL;
}

/* 8 × 3000 requests, 8 × 100 stay. */
static void threads(void)
{
    pthread_t thread[8];
    for (int i = 0; i < 8; i++)
        CHECK(pthread_create(&thread[i], NULL, thread_takes, NULL) == 0);
    for (int i = 0; i < 8; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
}

/* The child gives 10 of its parent's blocks back, and takes 40 of its own. */
static void forks(void)
{
    take(9001, 100);
    pid_t pid = fork();
    if (pid == 0) {
        give(10);
        take(9001, 40);
        _exit(0);
    }
    CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
    take(9001, 5);
}

/* What a program has, exec takes: calls add up, the greater peak stays. */
static void exec_again(char *self)
{
    char *arguments[] = {self, "less", NULL};
    take(9001, 3000);
    execv(self, arguments);
    check_failed(__FILE__, __LINE__, "exec");
}

/* All of a block may be used, but in a profile no more than was asked for is offered. */
static void usable(void)
{
    size_t n = malloc_usable_size(malloc(9001));
    CHECK(n == 9001);
    CHECK(malloc_usable_size(malloc(65536)) >= 65536);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "plain";
    if (strcmp(mode, "family") == 0)
        family();
    else if (strcmp(mode, "holes") == 0)
        holes();
    else if (strcmp(mode, "reallocs") == 0)
        reallocs();
    else if (strcmp(mode, "threads") == 0)
        threads();
    else if (strcmp(mode, "forks") == 0)
        forks();
    else if (strcmp(mode, "exec") == 0)
        exec_again(argv[0]);
    else if (strcmp(mode, "usable") == 0)
        usable();
    else if (strcmp(mode, "less") == 0)
        take(9001, 700);
    else
        plain();
    if (strcmp(mode, "killed") == 0)
        raise(SIGKILL);
    if (strcmp(mode, "_exit") == 0)
        _exit(3);
    return strcmp(mode, "fails") == 0 ? 5 : 0;
}
