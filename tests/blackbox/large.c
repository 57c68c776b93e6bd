/* Blocks beyond the pools that are at hand when they were freed: the program sees the plain malloc's contract, its memory comes down
 * when it lets go of it, and what it wrongly uses later still faults. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "check.h"
#include "pattern.h"
#include "process.h"

enum { LIVE = 200, ROUNDS = 8000, SMALLEST = 33000, RANGE = 230000, THREADS = 4 };

typedef struct { char *bytes; size_t size; } Buffer;

static void buffer_make(Buffer *b, Random *random)
{
    b->size = SMALLEST + random_below(random, RANGE);
    bool zeroed = random_below(random, 4) == 0;
    errno = 0;
    b->bytes = zeroed ? calloc(b->size / 8 + 1, 8) : malloc(b->size);
    CHECK(b->bytes != NULL && errno == 0 && (uintptr_t)b->bytes % 16 == 0 && malloc_usable_size(b->bytes) >= b->size);
    CHECK(!zeroed || all_zero(b->bytes, b->size));
    pattern_stamp(b->bytes, b->size, b->size);
}

static void buffer_grow(Buffer *b, Random *random)
{
    size_t size = random_below(random, 4) == 0 ? 1 + random_below(random, 60000) : b->size + random_below(random, 40000);
    char *bytes = realloc(b->bytes, size);
    CHECK(bytes != NULL && pattern_stamped(bytes, b->size, size < b->size ? size : b->size, b->size));
    *b = (Buffer){bytes, size};
    pattern_stamp(b->bytes, b->size, b->size);
}

static void buffer_end(Buffer *b)
{
    CHECK(!b->bytes || pattern_stamped(b->bytes, b->size, b->size, b->size));
    errno = EDOM;
    free(b->bytes);
    CHECK(errno == EDOM);
    b->bytes = NULL;
}

static Buffer shared[LIVE];
static pthread_mutex_t locks[LIVE];

/* Any thread ends or grows what any other made. */
static void *replace(void *seed)
{
    Random random = {(uint64_t)(uintptr_t)seed};
    for (int i = 0; i < ROUNDS; i++) {
        size_t k = random_below(&random, LIVE);
        pthread_mutex_lock(&locks[k]);
        if (shared[k].bytes && random_below(&random, 8) == 0) {
            buffer_grow(&shared[k], &random);
        } else {
            buffer_end(&shared[k]);
            buffer_make(&shared[k], &random);
        }
        pthread_mutex_unlock(&locks[k]);
    }
    return NULL;
}

static void replace_everywhere(void)
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, replace, (void *)(i + 1)) == 0);
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void end_all(void)
{
    for (size_t i = 0; i < LIVE; i++)
        buffer_end(&shared[i]);
}

/* A child goes on with what is there, and may end it. */
static void child_goes_on(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        replace((void *)7);
        end_all();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void edge_stays(void)
{
    int moves = 0;
    char *p = malloc(32768);
    for (int i = 0; i < 1000; i++) {
        char *q = realloc(p, i % 2 ? 32768 : 32784);
        CHECK(q != NULL);
        moves += q != p;
        p = q;
    }
    free(p);
    CHECKF(moves <= 2, "%d moves between 32768 and 32784", moves);
}

/* A buffer that grows by a quarter at a time moves less often than it grows. */
static void growth_skips(void)
{
    int moves = 0, grows = 0;
    char *p = NULL;
    for (size_t size = 16; size < 30000; size += size / 4 + 16, grows++) {
        char *q = realloc(p, size);
        CHECK(q != NULL);
        moves += q != p;
        p = q;
    }
    free(p);
    CHECKF(moves <= grows * 2 / 3, "%d moves for %d growths", moves, grows);
}

static void memory_falls(void)
{
    enum { N = 500, BYTES = 200 << 10 };
    static char *blocks[N];
    for (int i = 0; i < N; i++)
        memset(blocks[i] = malloc(BYTES), 1, BYTES);
    char *pin = malloc(40 << 10);
    memset(pin, 1, 40 << 10);
    long full = rss_kib();
    for (int i = 0; i < N; i++)
        free(blocks[i]);
    long left = rss_kib() - (full - N * (BYTES >> 10));
    free(pin);
    CHECKF(left < 3 * 1024, "%ld KiB stay of %d", left, N * (BYTES >> 10));
}

/* What stays of two buffers, one after the other, that grew to 2 MiB. */
static long buffers_leave(void)
{
    long before = rss_kib();
    for (int i = 0; i < 2; i++) {
        char *p = NULL;
        for (size_t size = 50 << 10; size <= 2 << 20; size *= 2) {
            p = realloc(p, size);
            CHECK(p != NULL);
            memset(p, 1, size);
        }
        free(p);
    }
    return rss_kib() - before;
}

/* The C library would keep the second one, having mapped and unmapped the first. It is left as it is where the program, or who starts it,
 * tunes it. */
static void buffers_go_back(bool tuned)
{
    for (int calls = 0; calls < 2; calls++) {
        pid_t child = fork();
        if (child == 0) {
            if (calls)
                CHECK(mallopt(M_ARENA_TEST, 8));
            long left = buffers_leave();
            CHECKF(calls || tuned ? left > 1536 : left < 1024, "%ld KiB stay", left);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
}

/* In a child, which ends by it. */
static void use_after_free_faults(void)
{
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        char *volatile p = malloc(256 << 10);
        free(p);
        memset(p, 'A', 256 << 10);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

/* With the C library behind us. The argument says that it is another one. */
static long page_faults(void)
{
    struct rusage used;
    CHECK(getrusage(RUSAGE_SELF, &used) == 0);
    return used.ru_minflt;
}

/* A buffer that is made over and over costs its pages once or a few times: it is kept at hand by us, or at the top of the C library's
 * heap. In a child, so that nothing else is there. */
static void made_over_and_over(void)
{
    enum { TIMES = 200, BYTES_EACH = 1000000 };
    int status;
    pid_t child = fork();
    if (child == 0) {
        char *volatile small = malloc(100); /* so that the thread has a heap in all modes */
        free(small);
        long before = page_faults();
        for (int i = 0; i < TIMES; i++) {
            char *volatile p = malloc(BYTES_EACH);
            CHECK(p != NULL);
            memset(p, 1, BYTES_EACH);
            free(p);
        }
        CHECKF(page_faults() - before < TIMES / 10 * (BYTES_EACH >> 12), "%ld page faults", page_faults() - before);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* 1 or 0: the mapping that p is in was advised to have huge pages; -1: nobody says. */
static int huge_advised(const void *p)
{
    char line[512];
    FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    int advised = -1;
    bool here = false;
    if (!f)
        return -1;
    fclose(f);
    CHECK((f = fopen("/proc/self/smaps", "r")) != NULL);
    while (fgets(line, sizeof line, f)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            here = (uintptr_t)p >= from && (uintptr_t)p < to;
        else if (here && strncmp(line, "VmFlags:", 8) == 0)
            advised = strstr(line, " hg") != NULL;
    }
    fclose(f);
    return advised;
}

/* Blocks beyond all bins, each a little larger, since the look at what was written depends on where they end. */
static int huge_after(size_t bytes, bool full)
{
    enum { TIMES = 24 };
    int advised = 0;
    for (size_t i = 0; i <= TIMES; i++) {
        size_t size = bytes + i * 300000;
        char *volatile p = malloc(size);
        CHECK(p != NULL);
        int here = huge_advised(p + size / 2);
        advised = i > TIMES - 4 && here > advised ? here : here < 0 ? here : advised; /* each eighth is not */
        memset(p, 1, full ? size : 1);
        p[size - 1] = 1;
        CHECKF(mappings_of(p, size) == 1, "%d mappings: mremap moves only one", mappings_of(p, size));
        free(p);
    }
    return advised;
}

static void full_blocks_get_huge_pages(void)
{
    bool never = getenv("POOLMALLOC_HUGEPAGES") != NULL;
    CHECK(huge_after((size_t)36 << 20, true) != never);
    CHECK(huge_after((size_t)70 << 20, false) != 1);
}

/* Where memory is short nobody goes without because something is at hand. */
static void short_of_memory(void)
{
    enum { N = 60, BYTES_EACH = 300000, WANTED = 12 << 20 };
    int status;
    pid_t child = fork();
    if (child == 0) {
        static char *blocks[2 * N];
        for (int round = 0; round < 6; round++) {
            for (int i = 0; i < 2 * N; i++)
                CHECK(blocks[i] || (blocks[i] = malloc(BYTES_EACH)));
            for (int i = 0; i < N; i++) {
                free(blocks[i]);
                blocks[i] = NULL;
            }
        }
        long kib = status_kib("VmSize:") + 1024;
        struct rlimit limit = {(rlim_t)kib << 10, (rlim_t)kib << 10};
        CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
        errno = 0;
        char *p = malloc(WANTED);
        CHECK(p != NULL && errno == 0);
        memset(p, 1, WANTED);
        CHECK(malloc(1 << 30) == NULL && errno == ENOMEM);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

int main(int argc, char **argv)
{
    (void)argv;
    for (size_t i = 0; i < LIVE; i++)
        pthread_mutex_init(&locks[i], NULL);
    made_over_and_over();
    if (argc == 1 && !getenv("POOLMALLOC_PURGE_DELAY") && !getenv("POOLMALLOC_LIMIT")) {
        buffers_go_back(getenv("MALLOC_ARENA_MAX"));
        short_of_memory();
    }
    if (argc == 1) {
        use_after_free_faults();
        memory_falls();
        if (!getenv("POOLMALLOC_PURGE_DELAY") && !getenv("POOLMALLOC_LIMIT"))
            full_blocks_get_huge_pages();
    }
    edge_stays();
    growth_skips();
    replace_everywhere();
    child_goes_on();
    replace((void *)5);
    malloc_trim(0);
    replace((void *)6);
    end_all();
    return 0;
}
