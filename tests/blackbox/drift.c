/* drift.c: ROUNDS [MILLISECONDS [THREADS]]: 16 MiB of blocks of one size, another one each round, for so long; every eighth block
 * outlives a few rounds; now and then a child goes on with it. What is in the blocks is checked. Prints the most that was resident in each
 * half of the rounds, in KiB. */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BYTES ((size_t)16 << 20)
#define KEEP 3 /* rounds */

typedef struct round {
    unsigned char **blocks;
    size_t count, size;
} round_of;

static int rounds, pause_ms, threads;
static long most[2];

static void fail(const char *what)
{
    fprintf(stderr, "drift: %s\n", what);
    abort();
}

static long resident(void)
{
    long all = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld %ld", &all, &pages) != 2)
        fail("no statm");
    fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void round_begin(round_of *r, size_t size)
{
    r->size = size;
    r->count = BYTES / (size_t)threads / size;
    r->blocks = calloc(r->count, sizeof *r->blocks);
    for (size_t i = 0; i < r->count; i++) {
        unsigned char *p = i % 16 ? malloc(size) : calloc(1, size);
        if (!p || malloc_usable_size(p) < size || (uintptr_t)p % 16 || (i % 16 == 0 && (p[0] || p[size - 1])))
            fail("a bad block");
        memset(p, (int)(i + size), size);
        r->blocks[i] = p;
    }
}

static void block_end(round_of *r, size_t i)
{
    unsigned char *p = r->blocks[i];
    if (!p)
        return;
    if (p[0] != (unsigned char)(i + r->size) || p[r->size - 1] != p[0] || p[r->size / 2] != p[0])
        fail("content changed");
    free(p);
    r->blocks[i] = NULL;
}

static void round_end(round_of *r, int every)
{
    for (size_t i = 0; i < r->count; i++)
        if (every == 1 || i % (size_t)every)
            block_end(r, i);
    if (every == 1) {
        free(r->blocks);
        *r = (round_of){0};
    }
}

static void child_goes_on(round_of *r)
{
    pid_t child = fork();
    int status = -1;
    if (child == 0) {
        round_of own;
        round_end(r, 1);
        round_begin(&own, 3333);
        round_end(&own, 1);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        fail("the child did not end well");
}

static void *run(void *argument)
{
    uint64_t x = (uint64_t)(uintptr_t)argument * 0x9E3779B97F4A7C15u + 88172645463325252u;
    round_of kept[KEEP] = {{0}};
    struct timespec rest = {pause_ms / 1000, pause_ms % 1000 * 1000000L};
    for (int i = 0; i < rounds; i++) {
        round_of *r = &kept[i % KEEP];
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        if (r->blocks)
            round_end(r, 1);
        round_begin(r, 400 + x % (i % 3 ? 8000 : 32000));
        long now = resident();
        if (argument == NULL && now > most[2 * i / rounds])
            most[2 * i / rounds] = now;
        round_end(r, 8);
        nanosleep(&rest, NULL);
        if (threads == 1 && i % 16 == 5)
            child_goes_on(r);
    }
    for (int i = 0; i < KEEP; i++)
        if (kept[i].blocks)
            round_end(&kept[i], 1);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t other[64];
    rounds = argc > 1 ? atoi(argv[1]) : 60;
    pause_ms = argc > 2 ? atoi(argv[2]) : 0;
    threads = argc > 3 ? atoi(argv[3]) : 1;
    for (int i = 1; i < threads; i++)
        pthread_create(&other[i], NULL, run, (void *)(intptr_t)i);
    run(NULL);
    for (int i = 1; i < threads; i++)
        pthread_join(other[i], NULL);
    printf("%ld %ld\n", most[0], most[1]);
    return 0;
}
