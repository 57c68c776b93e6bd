/* Error semantics: what the C library answers to odd, empty and impossible requests, and what errno tells.
 * Runs the same without any preload: the C library itself is the reference. */
#define _GNU_SOURCE
#include <stdbool.h>
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>

#include "check.h"
#include "pattern.h"

enum { SENTINEL = 4711, PAGE = 4096 };

/* Requests that no machine can serve. Each goes through opaque() so that the compiler keeps its opinion. */
static const size_t impossible[] = {PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 4096, SIZE_MAX - 15, SIZE_MAX};
enum { IMPOSSIBLE = sizeof impossible / sizeof *impossible };

static void *untouched;
#define CHECK_ENOMEM(call) \
    do { \
        errno = 0; \
        CHECK((call) == NULL); \
        CHECKF(errno == ENOMEM, "%s: errno is %d, not ENOMEM", #call, errno); \
    } while (0)

static void impossible_sizes(void)
{
    char *kept = malloc(100);
    pattern_fill(kept, 100, 1);
    for (int i = 0; i < IMPOSSIBLE; i++) {
        size_t size = opaque(impossible[i]);
        CHECK_ENOMEM(malloc(size));
        CHECK_ENOMEM(calloc(1, size));
        CHECK_ENOMEM(calloc(size, 1));
        CHECK_ENOMEM(realloc(NULL, size));
        CHECK_ENOMEM(realloc(kept, size));
        CHECK_ENOMEM(memalign(16, size));
        CHECK_ENOMEM(memalign(PAGE, size));
        CHECK_ENOMEM(aligned_alloc(64, size));
        CHECK_ENOMEM(valloc(size));
        CHECK_ENOMEM(pvalloc(size));
        untouched = kept;
        errno = 0;
        CHECK(posix_memalign(&untouched, 64, size) == ENOMEM && errno == ENOMEM);
        CHECK(untouched == kept);
        CHECK(pattern_holds(kept, 100, 1));
    }
    free(kept);
}

/* What fits into the address space, but not into any machine: the kernel is to be asked, and refuses unless told to promise anything. */
static void larger_than_the_machine(void)
{
    char policy = '1';
    FILE *file = fopen("/proc/sys/vm/overcommit_memory", "r");
    if (file) {
        policy = (char)fgetc(file);
        fclose(file);
    }
    for (int i = 0; i < 20 && policy != '1'; i++) {
        CHECK_ENOMEM(malloc(opaque((size_t)1 << (44 + i % 3))));
        CHECK_ENOMEM(calloc(1, opaque((size_t)1 << (44 + i % 3))));
    }
}

static void products_that_overflow(void)
{
    static const size_t pairs[][2] = {
        {SIZE_MAX / 2 + 1, 2}, {2, SIZE_MAX / 2 + 1},  {(size_t)1 << 32, (size_t)1 << 32}, {SIZE_MAX, SIZE_MAX},
        {SIZE_MAX, 2},         {SIZE_MAX / 16 + 1, 16}, {(size_t)1 << 33, (size_t)1 << 31 | 1},
    };
    void *kept = malloc(48);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        size_t count = opaque(pairs[i][0]), size = opaque(pairs[i][1]);
        CHECK_ENOMEM(calloc(count, size));
        CHECK_ENOMEM(reallocarray(NULL, count, size));
        CHECK_ENOMEM(reallocarray(kept, count, size));
    }
    free(kept);
}

static void bad_alignments(void)
{
    static const size_t refused[] = {0, 1, 2, 4, 3, 12, 24, 100, SIZE_MAX};
    int here;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        untouched = &here;
        CHECKF(posix_memalign(&untouched, opaque(refused[i]), 64) == EINVAL, "alignment %zu accepted", refused[i]);
        CHECK(untouched == &here);
    }
    /* memalign rounds up to a power of two. */
    static const size_t rounded[][2] = {{0, 16}, {1, 16}, {3, 16}, {17, 32}, {24, 32}, {33, 64}, {100, 128}, {3000, 4096}};
    for (size_t i = 0; i < sizeof rounded / sizeof *rounded; i++)
        for (size_t size = 0; size < 5000; size += 123) {
            void *block = memalign(opaque(rounded[i][0]), size);
            CHECK(block != NULL && (uintptr_t)block % rounded[i][1] == 0);
            memset(block, 1, size);
            free(block);
        }
    errno = 0;
    CHECK(memalign(opaque(SIZE_MAX / 2 + 2), 1) == NULL && errno == EINVAL);
    CHECK_ENOMEM(memalign(opaque(SIZE_MAX / 2 + 1), 1));
    CHECK_ENOMEM(aligned_alloc(opaque(SIZE_MAX / 2 + 1), 16));
    void *odd = aligned_alloc(opaque(24), 96); /* as the C library has it: refused from 2.38 on, rounded up before */
    CHECK(odd ? (uintptr_t)odd % 32 == 0 : errno == EINVAL);
    free(odd);
}

/* Zero bytes: a block of its own from every function; realloc(p, 0) frees. */
static void empty_requests(void)
{
    enum { BLOCKS = 9 };
    void *blocks[BLOCKS] = {malloc(opaque(0)),          calloc(0, 0),          calloc(opaque(0), 8),
                            calloc(8, opaque(0)),       realloc(NULL, 0),      memalign(64, 0),
                            aligned_alloc(32, 0),       valloc(0),             NULL};
    CHECK(posix_memalign(&blocks[BLOCKS - 1], 128, 0) == 0);
    for (int i = 0; i < BLOCKS; i++) {
        CHECKF(blocks[i] != NULL, "empty request %d gave NULL", i);
        for (int j = 0; j < i; j++)
            CHECKF(blocks[i] != blocks[j], "empty requests %d and %d gave one block", j, i);
    }
    CHECK((uintptr_t)blocks[5] % 64 == 0 && (uintptr_t)blocks[6] % 32 == 0);
    CHECK((uintptr_t)blocks[7] % PAGE == 0 && (uintptr_t)blocks[8] % 128 == 0);
    for (int i = 0; i < BLOCKS; i++) {
        errno = SENTINEL;
        CHECK(realloc(blocks[i], opaque(0)) == NULL);
        CHECK(errno == SENTINEL);
    }
    CHECK(malloc_usable_size(NULL) == 0);
}

/* realloc(p, 0) must free: a million of them may not grow the process. */
static void realloc_to_nothing_frees(void)
{
    uintptr_t lowest = UINTPTR_MAX, highest = 0;
    for (int i = 0; i < 1000000; i++) {
        uintptr_t at = (uintptr_t)malloc(1000);
        lowest = at < lowest ? at : lowest;
        highest = at > highest ? at : highest;
        CHECK(realloc((void *)at, opaque(0)) == NULL);
    }
    CHECKF(highest - lowest < 64u << 20, "realloc(p, 0) leaks: blocks spread over %zu bytes", (size_t)(highest - lowest));
}

static void page_requests(void)
{
    for (size_t size = 0; size < 3 * PAGE; size += 511) {
        void *page = valloc(size), *pages = pvalloc(size);
        CHECK(page != NULL && (uintptr_t)page % PAGE == 0 && malloc_usable_size(page) >= size);
        CHECK(pages != NULL && (uintptr_t)pages % PAGE == 0);
        size_t rounded = (size + PAGE - 1) / PAGE * PAGE;
        CHECK(malloc_usable_size(pages) >= rounded);
        memset(pages, 1, rounded);
        free(page);
        free(pages);
    }
}

/* Success and free leave errno alone, whatever happens inside: pools, mmap, purges. */
static void errno_is_kept(void)
{
    enum { BLOCKS = 20000 };
    static void *blocks[BLOCKS];
    Random random = {7};
    errno = SENTINEL;
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            size_t size = random_below(&random, i % 50 ? 1500 : 300000);
            blocks[i] = i % 3 == 0 ? malloc(size) : i % 3 == 1 ? calloc(1, size) : memalign(64, size);
            CHECKF(blocks[i] != NULL && errno == SENTINEL, "errno became %d on success", errno);
            if (i % 5 == 0)
                blocks[i] = realloc(blocks[i], random_below(&random, 40000) + 1);
            CHECK(errno == SENTINEL && malloc_usable_size(blocks[i]) != (size_t)-1 && errno == SENTINEL);
        }
        for (int i = 0; i < BLOCKS; i++) {
            free(blocks[i * 7 % BLOCKS]);
            CHECKF(errno == SENTINEL, "free set errno to %d", errno);
        }
    }
    free(NULL);
    CHECK(errno == SENTINEL);
}

/* Newer or older than this C library's headers: there only when the preload brings them. */
static void optional_frees(void)
{
    void (*sized)(void *, size_t) = (void (*)(void *, size_t))dlsym(RTLD_DEFAULT, "free_sized");
    void (*aligned_sized)(void *, size_t, size_t) = (void (*)(void *, size_t, size_t))dlsym(RTLD_DEFAULT, "free_aligned_sized");
    void (*old)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "cfree");
    /* A wrong hint may not harm: real programs give them. The hardened library alone takes their word. */
    static const size_t hints[] = {0, 100, 1, 1000000};
    const char *preload = getenv("LD_PRELOAD");
    bool strict = preload != NULL && strstr(preload, "hardened") != NULL;
    errno = SENTINEL;
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++) {
        if (sized != NULL) {
            sized(malloc(100), strict ? 100 : hints[i]);
            sized(malloc(100000), strict ? 100000 : hints[i]);
        }
        if (aligned_sized != NULL)
            aligned_sized(aligned_alloc(64, 192), 64, strict ? 192 : hints[i]);
    }
    if (sized != NULL)
        sized(NULL, 10);
    if (aligned_sized != NULL)
        aligned_sized(NULL, 16, 10);
    if (old != NULL) {
        old(malloc(64));
        old(NULL);
    }
    CHECK(errno == SENTINEL);
}

int main(void)
{
    impossible_sizes();
    larger_than_the_machine();
    products_that_overflow();
    bad_alignments();
    empty_requests();
    realloc_to_nothing_frees();
    page_requests();
    errno_is_kept();
    optional_frees();
    return 0;
}
