/* who_sites.c: a program whose call sites hold known shares. who_sites HOW [MIB] [SECONDS]
 *   fill     three sites hold 60, 30 and 10 % of MIB, in random order
 *   wait     the same, but begins when a line comes in, says so when it is done, and waits for another line
 *   runs     the same, one site after the other
 *   peak     a site of 60 % that is given back before another one of 30 % comes
 *   server   holds MIB, allocates and frees all the time, and leaks 1 MB a second for SECONDS
 *   leak     what nobody points to: 100 blocks of 1000 bytes, one of 300000; and 100 that somebody does
 *   threads  three, each of which holds a third of MIB
 *   deep     a site below more stack than is copied
 *   made     the site of 60 % below two functions of machine code written at run time, at eight places each
 *   busy     threads that allocate and free, and forks, until stdin ends
 *   signal, _exit   as fill, and ends so */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SITE __attribute__((noinline))
#define MIB ((size_t)1 << 20)

static uint64_t seed = 88172645463325252u;
static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

/* All blocks in use, linked through their first words. */
static void *held;
static size_t hold(void *p, size_t size)
{
    if (!p)
        abort();
    *(void **)p = held;
    held = p;
    return size;
}

SITE size_t site_sixty(size_t size) { return hold(malloc(size), size); }
SITE size_t site_thirty(size_t size) { return hold(malloc(size), size); }
SITE size_t site_ten(size_t size) { return hold(calloc(1, size), size); }

typedef size_t site(size_t size);
static site *const sites[] = {site_sixty, site_thirty, site_ten};
static const double shares[] = {0.6, 0.3, 0.1};

/* Whoever is furthest behind its share comes next, but for a random one now and then. */
static void fill(size_t bytes)
{
    size_t has[3] = {0, 0, 0}, total = 0;
    while (total < bytes) {
        unsigned which = (unsigned)(next_random() % 3);
        if (next_random() % 8)
            for (unsigned i = 0; i < 3; i++)
                if ((double)has[i] < shares[i] * (double)total)
                    which = i;
        if ((double)has[which] >= shares[which] * (double)bytes)
            for (which = 0; which < 2 && (double)has[which] >= shares[which] * (double)bytes;)
                which++;
        size_t n = sites[which](16 + next_random() % 1000);
        has[which] += n;
        total += n;
    }
}

static void runs(size_t bytes)
{
    for (unsigned i = 0; i < 3; i++)
        for (size_t n = 0; (double)n < shares[i] * (double)bytes;)
            n += sites[i](64);
}

SITE size_t site_deep(size_t size) { return hold(malloc(size), size); }

SITE void descend(unsigned depth, size_t bytes)
{
    volatile char room[100] = {0};
    (void)room[0];
    if (depth > 0)
        descend(depth - 1, bytes);
    else
        for (size_t n = 0; n < bytes;)
            n += site_deep(500);
    __asm__ volatile("" ::: "memory"); /* no call is the last one */
}

static void deep(size_t bytes) { descend(400, bytes); }

static void drop_all(void)
{
    while (held) {
        void *next = *(void **)held;
        free(held);
        held = next;
    }
}

static void peak(size_t bytes)
{
    for (size_t n = 0; n < bytes / 10 * 6;)
        n += site_sixty(500);
    sleep(2);
    drop_all();
    for (size_t n = 0; n < bytes / 10 * 3;)
        n += site_thirty(500);
}

/* ---- a server ---- */

#define REQUEST 200
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

SITE uintptr_t leak_one(size_t size) { return (uintptr_t)malloc(size) >> 3; }

/* Goes deeper than where the leak is, so that bins never run empty there. */
SITE void request(int leaks, uint64_t *sink)
{
    void *blocks[REQUEST];
    for (int i = 0; i < REQUEST; i++) {
        blocks[i] = malloc(200);
        if (i == REQUEST / 4)
            for (int k = 0; k < leaks; k++)
                *sink ^= leak_one(200);
    }
    for (int i = 0; i < REQUEST; i++)
        free(blocks[i]);
}

static void server(size_t bytes, double seconds)
{
    uint64_t sink = 0;
    fill(bytes);
    puts("ready");
    fflush(stdout);
    double began = now(), leaked = 0;
    for (double at; (at = now() - began) < seconds;) {
        int leaks = (int)((at * 1e6 - leaked) / 200);
        leaks = leaks > 4 ? 4 : leaks; /* a few a request */
        request(leaks, &sink);
        leaked += leaks * 200;
        if (leaks < 4)
            usleep(200);
    }
}

/* ---- leaks ---- */

static void *volatile kept[100];
static void *volatile gone;

SITE void leak_small(void)
{
    for (int i = 0; i < 100; i++)
        gone = malloc(1000);
}
SITE void leak_large(void) { gone = malloc(300000); }
SITE void keep_small(void)
{
    for (int i = 0; i < 100; i++)
        kept[i] = malloc(1000);
}
SITE void keep_chain(void) /* only a large block points to these */
{
    void **table = malloc(200000);
    for (int i = 0; i < 100; i++)
        table[i] = malloc(900);
    kept[0] = table;
}

static void leak(void)
{
    leak_small();
    leak_large();
    keep_chain();
    void *volatile first = kept[0];
    keep_small();
    *(void **)kept[1] = first;
    gone = NULL;
}

/* ---- threads ---- */

static __thread void *own_held;
static void *thread_fill(void *context)
{
    for (size_t n = 0; n < (size_t)context; n += 400) {
        void **p = malloc(400);
        *p = own_held;
        own_held = p;
    }
    return own_held;
}

static void threads(size_t bytes)
{
    pthread_t all[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&all[i], NULL, thread_fill, (void *)(bytes / 3));
    for (int i = 0; i < 3; i++)
        pthread_join(all[i], (void **)&kept[i]);
}

/* ---- made ---- */

/* Each saves the frame pointer, and calls what it is given. */
static const unsigned char outer[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf0, 0x48, 0x89, 0xd6, 0xff, 0xd0, 0x5d, 0xc3};
static const unsigned char inner[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd6, 0x5d, 0xc3};

static void made(size_t bytes)
{
    unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED)
        abort();
    for (size_t i = 0; i < 8; i++) {
        memcpy(code + 64 * i, outer, sizeof outer);
        memcpy(code + 64 * i + 32, inner, sizeof inner);
    }
    for (size_t n = 0; n < bytes;) {
        const unsigned char *at = code + 64 * (next_random() % 8);
        size_t (*call)(size_t, const void *, site *);
        memcpy(&call, &at, sizeof call);
        n += call(500, at + 32, site_sixty);
    }
}

/* ---- busy ---- */

static volatile int stop;

static void *busy_thread(void *context)
{
    uint64_t own = (uintptr_t)context * 2654435761u + 1;
    void *slots[512] = {0};
    while (!stop) {
        own = own * 6364136223846793005u + 1442695040888963407u;
        void **slot = &slots[own >> 40 & 511];
        free(*slot);
        *slot = own >> 33 & 63 ? malloc(own >> 50 & 2047) : malloc(own >> 45);
    }
    for (int i = 0; i < 512; i++)
        free(slots[i]);
    return NULL;
}

static void busy(void)
{
    pthread_t threads[3];
    char line[8];
    for (uintptr_t i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, busy_thread, (void *)(i + 1));
    puts("ready");
    fflush(stdout);
    for (int n = 0; n < 1000000; n++) {
        pid_t child = fork();
        if (child == 0) {
            for (int i = 0; i < 1000; i++)
                free(malloc(100 + (size_t)i));
            _exit(0);
        }
        int status;
        if (child > 0 && (waitpid(child, &status, 0) != child || status != 0))
            abort();
        fd_set ready;
        struct timeval none = {0, 2000};
        FD_ZERO(&ready);
        FD_SET(0, &ready);
        if (select(1, &ready, NULL, NULL, &none) > 0 && read(0, line, sizeof line) <= 0)
            break;
    }
    stop = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "fill";
    size_t bytes = (argc > 2 ? (size_t)atoi(argv[2]) : 200) * MIB;
    char line[64];
    if (strcmp(how, "busy") == 0)
        return busy(), 0;
    if (strcmp(how, "leak") == 0)
        return leak(), 3;
    if (strcmp(how, "server") == 0)
        return server(bytes, argc > 3 ? atof(argv[3]) : 30), 0;
    if (strcmp(how, "wait") == 0) {
        puts("ready");
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin))
            return 1;
    }
    (strcmp(how, "runs") == 0      ? runs
     : strcmp(how, "peak") == 0    ? peak
     : strcmp(how, "threads") == 0 ? threads
     : strcmp(how, "deep") == 0    ? deep
     : strcmp(how, "made") == 0    ? made
                                   : fill)(bytes);
    if (strcmp(how, "wait") == 0) {
        puts("done");
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin))
            return 0;
    }
    if (strcmp(how, "signal") == 0)
        raise(SIGKILL);
    if (strcmp(how, "_exit") == 0)
        _exit(5);
    return 0;
}
