/* misuse.c: Misuse of malloc's memory, one way a case. Built without knowledge of what malloc and memcpy are. */
#include "cases.h"

#include <alloca.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FEW = 8, MANY = 1000, SECRET = 0x5a };

static char letters[64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZ";

static char *block(size_t size)
{
    char *p = opaque(malloc(size));
    if (p)
        memset(p, SECRET, size);
    return p;
}

static bool holds_secret(const char *p, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < size; i++)
        n += p[i] == SECRET;
    return n > size / 4;
}

static void loop(char *to, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        *opaque(to + i) = 'A';
}

/* What is written is never what lay there by chance, one byte in 256: that would be no misuse. */
static void loop_down(char *to, size_t bytes)
{
    for (size_t i = 1; i <= bytes; i++) {
        char *at = opaque(to - i);
        *at = *at == 'A' ? 'B' : 'A';
    }
}

static void in_thread(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, argument) == 0)
        pthread_join(thread, NULL);
}

static void *free_it(void *p)
{
    free(p);
    return NULL;
}

/* ---- given back twice ---- */

static bool double_free(size_t size)
{
    char *p = block(size);
    free(p);
    free(opaque(p));
    return true;
}

static bool double_free_after_other(size_t size)
{
    char *a = block(size), *b = block(size);
    free(a);
    free(b);
    free(opaque(a));
    return true;
}

static bool double_free_after_many(size_t size)
{
    char *p = block(size), *others[20];
    for (int i = 0; i < 20; i++)
        others[i] = block(size);
    free(p);
    for (int i = 0; i < 20; i++)
        free(others[i]);
    free(opaque(p));
    return true;
}

static bool double_free_after_malloc(size_t size)
{
    char *p = block(size);
    free(p);
    block(size);
    block(size / 2);
    free(opaque(p));
    return true;
}

/* Of a size that has come and gone a few times. */
static bool double_free_of_usual(size_t size)
{
    for (int i = 0; i < FEW; i++)
        free(block(size));
    return double_free(size);
}

static bool double_free_of_usual_after_other(size_t size)
{
    for (int i = 0; i < FEW; i++) {
        char *a = block(size), *b = block(size);
        free(a);
        free(b);
    }
    return double_free_after_other(size);
}

static bool double_free_two_owners(size_t size)
{
    char *p = block(size), *between = block(size), *a, *b, *c;
    free(p);
    free(between);
    free(opaque(p));
    a = block(size);
    b = block(size);
    c = block(size);
    return a == b || b == c || a == c;
}

static bool double_free_by_thread(size_t size)
{
    char *p = block(size);
    in_thread(free_it, p);
    free(opaque(p));
    return true;
}

static bool double_free_of_threads(size_t size)
{
    char *p = block(size);
    in_thread(free_it, p);
    in_thread(free_it, opaque(p));
    return true;
}

static bool double_free_by_realloc(size_t size)
{
    char *p = block(size);
    free(p);
    return realloc(opaque(p), 2 * size) != NULL;
}

static bool double_free_after_realloc(size_t size)
{
    char *p = block(size), *q = opaque(realloc(p, 4 * size + 64));
    free(opaque(p));
    return p != q;
}

static bool usable_size_of_freed(size_t size)
{
    char *p = block(size);
    free(p);
    return malloc_usable_size(opaque(p)) >= size;
}

/* ---- given back where no block begins ---- */

static bool free_at(char *p)
{
    free(opaque(p));
    return true;
}

static bool free_misaligned(size_t size) { return free_at(block(size) + 1); }
static bool free_inner(size_t size) { return free_at(block(size) + size / 2); }
static bool free_quantum_behind(size_t size) { return free_at(block(size) + 16); }
static bool free_quantum_before(size_t size) { return free_at(block(size) - 16); }
static bool free_end(size_t size) { return free_at(block(size) + size); }
static bool free_page_inside(size_t size) { return free_at(block(size) + (size > 4096 ? 4096 : size / 2)); }
static bool free_far_behind(size_t size) { return free_at(block(size) + 3 * size + 4096 + 16); }
static bool realloc_inner(size_t size) { return realloc(block(size) + size / 2, 2 * size) != NULL; }

/* What a chunk of the C library's looks like, where the program wants its next block. */
static bool free_forged(size_t size)
{
    size_t words[64] = {0};
    words[1] = words[7] = words[9] = 0x41;
    char *forged = opaque(&words[2]);
    block(size);
    free(forged);
    return block(0x38) == forged;
}

static bool free_static(size_t size)
{
    block(size);
    return free_at(letters + ((uintptr_t)letters & 15 ? 8 : 0));
}

/* ---- written before its beginning ---- */

static bool freed_unseen(char *p)
{
    free(opaque(p));
    block(malloc_usable_size(block(16)));
    return true;
}

static bool before_1(size_t size)
{
    char *p = block(size);
    loop_down(p, 1);
    return freed_unseen(p);
}

static bool before_16(size_t size)
{
    char *p = block(size);
    loop_down(p, 16);
    return freed_unseen(p);
}

static bool before_32(size_t size)
{
    char *p = block(size);
    loop_down(p, 32);
    return freed_unseen(p);
}

static bool before_32_memcpy(size_t size)
{
    char *p = block(size);
    memcpy(opaque(p - 32), letters, 32);
    return freed_unseen(p);
}

static bool before_32_memset(size_t size)
{
    char *p = block(size);
    memset(opaque(p - 32), 'A', 32);
    return freed_unseen(p);
}

static bool before_at_32(size_t size)
{
    char *p = block(size);
    *opaque(p - 32) = 'A';
    return freed_unseen(p);
}

static bool before_never_freed(size_t size)
{
    loop_down(block(size), 1);
    return true;
}

static bool before_between_others(size_t size)
{
    char *some[FEW];
    for (int i = 0; i < FEW; i++)
        some[i] = block(size);
    loop_down(some[FEW / 2], 1);
    for (int i = 0; i < FEW; i++)
        free(some[i]);
    return true;
}

/* ---- written past its end ---- */

static bool past_1(size_t size)
{
    char *p = block(size);
    loop(p, size + 1);
    return freed_unseen(p);
}

static bool past_1_only(size_t size)
{
    char *p = block(size);
    loop(p + size, 1);
    return freed_unseen(p);
}

static bool past_1_memcpy(size_t size)
{
    char *p = block(size);
    memcpy(opaque(p + size), letters, 1);
    return freed_unseen(p);
}

static bool past_1_memset(size_t size)
{
    char *p = block(size);
    memset(opaque(p), 'A', size + 1);
    return freed_unseen(p);
}

/* The zero at the end of a string. */
static bool past_1_string(size_t size)
{
    char *p = block(size), *from = opaque(malloc(2 * size));
    memset(from, 'A', size);
    from[size] = 0;
    strcpy(p, from);
    return freed_unseen(p);
}

static bool past_8(size_t size)
{
    char *p = block(size);
    loop(p + size, 8);
    return freed_unseen(p);
}

static bool past_32(size_t size)
{
    char *p = block(size);
    loop(p, size + 32);
    return freed_unseen(p);
}

static bool past_32_memcpy(size_t size)
{
    char *p = block(size);
    memcpy(opaque(p + size), letters, 32);
    return freed_unseen(p);
}

static bool past_32_memset(size_t size)
{
    char *p = block(size);
    memset(opaque(p), 'A', size + 32);
    return freed_unseen(p);
}

static bool past_at_32(size_t size)
{
    char *p = block(size);
    *opaque(p + size + 31) = 'A';
    return freed_unseen(p);
}

static bool past_never_freed(size_t size)
{
    char *p = block(size);
    loop(p + size, 1);
    return true;
}

static bool past_then_realloc(size_t size)
{
    char *p = block(size);
    loop(p + size, 1);
    return realloc(opaque(p), 4 * size) != NULL;
}

static bool past_calloc(size_t size)
{
    char *p = opaque(calloc(1, size));
    loop(p + size, 1);
    return freed_unseen(p);
}

static bool past_aligned(size_t size)
{
    char *p = opaque(memalign(64, size));
    loop(p + size, 1);
    return freed_unseen(p);
}

static bool past_realloced(size_t size)
{
    char *p = opaque(realloc(block(2 * size), size));
    loop(p + size, 1);
    return freed_unseen(p);
}

/* Of two blocks the lower one is written past its end, as far as the other. */
static bool past_into_next(size_t size)
{
    char *a = block(size), *b = block(size), *low = a < b ? a : b, *high = a < b ? b : a;
    size_t gap = (size_t)(high - low);
    loop(low + size, gap - size + 1);
    bool reached = *opaque(high) == 'A';
    free(high);
    free(low);
    return reached;
}

static bool past_by_thread(size_t size)
{
    char *p = block(size);
    loop(p + size, 1);
    in_thread(free_it, p);
    return true;
}

/* ---- used after it was given back ---- */

static bool written_then_malloc(size_t size)
{
    char *p = block(size);
    free(p);
    loop(p, 1);
    block(size);
    return true;
}

static bool written_whole_then_malloc(size_t size)
{
    char *p = block(size);
    free(p);
    memset(opaque(p), 'A', size);
    block(size);
    return true;
}

static bool written_last_then_malloc(size_t size)
{
    char *p = block(size);
    free(p);
    loop(p + size - 1, 1);
    block(size);
    return true;
}

static bool written_then_free(size_t size)
{
    char *a = block(size), *b = block(size);
    free(a);
    loop(a, 1);
    free(b);
    return true;
}

static bool written_then_much(size_t size)
{
    char *p = block(size);
    free(p);
    for (int i = 0; i < FEW; i++)
        free(block(size));
    loop(p, 1);
    for (int i = 0; i < MANY; i++)
        free(block(size));
    return true;
}

static bool written_then_end(size_t size)
{
    char *p = block(size);
    free(p);
    for (int i = 0; i < FEW; i++)
        block(size);
    loop(p, 1);
    return true;
}

static bool written_after_realloc(size_t size)
{
    char *p = block(size), *q = opaque(realloc(p, 4 * size));
    loop(p, 1);
    block(size);
    return *q == SECRET;
}

static bool written_by_thread(size_t size)
{
    char *p = block(size);
    in_thread(free_it, p);
    loop(p, 1);
    block(size);
    return true;
}

static uintptr_t aim[32]; /* where the program wants its next block */

/* Links of the C library's lists, both as they are and as it hides them. */
static bool written_link(size_t size, bool hidden)
{
    char *a = block(size), *b = block(size), *target = opaque((char *)(((uintptr_t)&aim[2] + 15) & ~(uintptr_t)15));
    free(a);
    free(b);
    uintptr_t link = (uintptr_t)target ^ (hidden ? (uintptr_t)b >> 12 : 0);
    memcpy(opaque(b), &link, sizeof link);
    for (int i = 0; i < 3; i++)
        if (opaque(malloc(size)) == target)
            return true;
    return false;
}

static bool written_link_plain(size_t size) { return written_link(size, false); }
static bool written_link_hidden(size_t size) { return written_link(size, true); }

static bool read_freed(size_t size)
{
    char *p = block(size);
    free(p);
    return holds_secret(opaque(p), size);
}

static bool read_after_realloc(size_t size)
{
    char *p = block(size), *q = opaque(realloc(p, 4 * size + 64));
    if (p == q)
        return true;
    return holds_secret(opaque(p), size);
}

static bool read_after_shrink(size_t size)
{
    char *p = block(size), *q = opaque(realloc(p, size / 4 + 1));
    return p == q ? holds_secret(opaque(p + size / 2), size / 2) : holds_secret(opaque(p), size);
}

/* ---- what a new block may tell ---- */

static bool read_new(size_t size)
{
    char *some[FEW];
    for (int i = 0; i < FEW; i++)
        some[i] = block(size);
    for (int i = 0; i < FEW; i++)
        free(some[i]);
    for (int i = 0; i < FEW; i++)
        if (holds_secret(opaque(malloc(size)), size))
            return true;
    return false;
}

static bool read_new_smaller(size_t size)
{
    for (int i = 0; i < FEW; i++)
        free(block(size));
    char *p = opaque(malloc(size / 2));
    return holds_secret(p, size / 2);
}

static bool read_new_after_many(size_t size)
{
    for (int i = 0; i < MANY; i++)
        free(block(size));
    for (int i = 0; i < MANY; i++)
        if (holds_secret(opaque(malloc(size)), size))
            return true;
    return false;
}

static bool read_new_aligned(size_t size)
{
    free(block(size));
    return holds_secret(opaque(memalign(64, size)), size);
}

static bool read_grown(size_t size)
{
    for (int i = 0; i < FEW; i++)
        free(block(2 * size));
    char *p = opaque(realloc(block(size), 2 * size));
    return holds_secret(p + size, size);
}

/* ---- a freed block that comes back ---- */

static bool reused_at_once(size_t size)
{
    char *p = block(size);
    free(p);
    return block(size) == p;
}

static bool reused_by_smaller(size_t size)
{
    char *p = block(size);
    free(p);
    return block(size - size / 8 - 1) == p;
}

static bool reused_by_larger(size_t size)
{
    char *p = block(size);
    free(p);
    return block(size + 4) == p;
}

static bool reused_by_few(size_t size)
{
    char *p = block(size);
    bool same = false;
    free(p);
    for (int i = 0; i < FEW; i++)
        same |= block(size) == p;
    return same;
}

static bool reused_in_turn(size_t size)
{
    char *p = block(size);
    free(p);
    for (int i = 0; i < FEW; i++) {
        char *q = block(size);
        if (q == p)
            return true;
        free(q);
    }
    return false;
}

static bool reused_by_calloc(size_t size)
{
    char *p = block(size);
    free(p);
    return opaque(calloc(1, size)) == p;
}

static bool reused_after_realloc(size_t size)
{
    char *p = block(size), *q = opaque(realloc(p, 4 * size + 64));
    return p == q || block(size) == p;
}

static bool reused_lifo(size_t size)
{
    char *a = block(size), *b = block(size);
    free(a);
    free(b);
    char *c = block(size), *d = block(size);
    return c == b || d == a || c == a || d == b;
}

/* Each block lies where the one before it says. */
static bool places_foretold(size_t size)
{
    char *first = block(size), *last = block(size);
    ptrdiff_t step = last - first;
    for (int i = 0; i < FEW; i++) {
        char *p = block(size);
        if (p - last != step)
            return false;
        last = p;
    }
    return true;
}

/* ---- blocks of no bytes ---- */

static bool zero_read(size_t size)
{
    volatile char *p = opaque(malloc(size - size));
    return p && *p <= 127;
}

static bool zero_written(size_t size)
{
    char *p = opaque(malloc(size - size));
    loop(p, 1);
    free(p);
    return true;
}

static bool zero_calloc_written(size_t size)
{
    char *p = opaque(calloc(0, size));
    loop(p, 8);
    return true;
}

static bool zero_freed_twice(size_t size)
{
    char *p = opaque(malloc(size - size));
    free(p);
    free(opaque(p));
    return true;
}

static bool zero_reused(size_t size)
{
    char *p = opaque(malloc(size - size));
    free(p);
    return opaque(malloc(size - size)) == p;
}

/* ---- sizes that cannot be ---- */

static bool calloc_wraps(size_t size) { return opaque(calloc((size_t)1 << 61, size)) != NULL; }
static bool malloc_of_all(size_t size) { return opaque(malloc(SIZE_MAX - size)) != NULL; }
static bool realloc_of_all(size_t size) { return opaque(realloc(block(size), SIZE_MAX - 2 * size)) != NULL; }

/* ---- blocks of other makers, in other threads and processes ---- */

enum maker { CALLOC, REALLOC, REALLOCARRAY, STRDUP, POSIX_MEMALIGN, ALIGNED_ALLOC, VALLOC, THREAD };

static void *block_in_thread(void *size) { return block(*(size_t *)size); }

static char *made(enum maker by, size_t size)
{
    void *p = NULL;
    char *text;
    pthread_t thread;
    switch (by) {
    case CALLOC: return opaque(calloc(size, 1));
    case REALLOC: return opaque(realloc(NULL, size));
    case REALLOCARRAY: return opaque(reallocarray(block(size / 2 + 1), size, 1));
    case POSIX_MEMALIGN: return posix_memalign(&p, 32, size) == 0 ? opaque(p) : NULL;
    case ALIGNED_ALLOC: return opaque(aligned_alloc(256, size));
    case VALLOC: return opaque(valloc(size));
    case STRDUP:
        text = memset(alloca(size), 'A', size);
        text[size - 1] = 0;
        return opaque(strdup(text));
    case THREAD:
        if (pthread_create(&thread, NULL, block_in_thread, &size) == 0)
            pthread_join(thread, &p);
        return opaque(p);
    }
    return NULL;
}

static bool past_of(enum maker by, size_t size)
{
    char *p = made(by, size);
    loop(p + size, 1);
    return freed_unseen(p);
}

static bool past_calloc_items(size_t size) { return past_of(CALLOC, size); }
static bool past_realloc_new(size_t size) { return past_of(REALLOC, size); }
static bool past_reallocarray(size_t size) { return past_of(REALLOCARRAY, size); }
static bool past_strdup(size_t size) { return past_of(STRDUP, size); }
static bool past_posix_memalign(size_t size) { return past_of(POSIX_MEMALIGN, size); }
static bool past_aligned_alloc(size_t size) { return past_of(ALIGNED_ALLOC, size); }
static bool past_valloc(size_t size) { return past_of(VALLOC, size); }
static bool past_thread_s(size_t size) { return past_of(THREAD, size); }

static bool double_free_of(enum maker by, size_t size)
{
    char *p = made(by, size);
    free(p);
    free(opaque(p));
    return true;
}

static bool double_free_calloc(size_t size) { return double_free_of(CALLOC, size); }
static bool double_free_strdup(size_t size) { return double_free_of(STRDUP, size); }
static bool double_free_posix_memalign(size_t size) { return double_free_of(POSIX_MEMALIGN, size); }
static bool double_free_valloc(size_t size) { return double_free_of(VALLOC, size); }
static bool double_free_thread_s(size_t size) { return double_free_of(THREAD, size); }
static bool free_inner_aligned(size_t size) { return free_at(made(ALIGNED_ALLOC, size) + 16); }
static bool free_inner_calloc(size_t size) { return free_at(made(CALLOC, size) + 1); }

static bool written_of(enum maker by, size_t size)
{
    char *p = made(by, size);
    free(p);
    loop(p, 1);
    free(block(size));
    return true;
}

static bool written_calloc(size_t size) { return written_of(CALLOC, size); }
static bool written_aligned_alloc(size_t size) { return written_of(ALIGNED_ALLOC, size); }
static bool written_thread_s(size_t size) { return written_of(THREAD, size); }

/* A buffer that became smaller, used as before. */
static bool past_shrunk(size_t size)
{
    char *p = opaque(realloc(block(2 * size + 64), size));
    loop(p + size, 16);
    return freed_unseen(p);
}

static void *block_freed(void *size)
{
    char *p = block(*(size_t *)size);
    free(p);
    return p;
}

static char *freed_by_ended_thread(size_t size)
{
    void *p = NULL;
    pthread_t thread;
    if (pthread_create(&thread, NULL, block_freed, &size) == 0)
        pthread_join(thread, &p);
    return opaque(p);
}

static bool double_free_of_ended_thread_s(size_t size) { return free_at(freed_by_ended_thread(size)); }

static bool written_of_ended_thread_s(size_t size)
{
    loop(freed_by_ended_thread(size), 1);
    return true;
}

/* A child does it, and this process ends as the child did. */
static bool in_child(bool (*run)(char *, size_t), char *p, size_t size)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        exit(!run(p, size));
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    return WEXITSTATUS(status) == 0;
}

static bool free_in_child(char *p, size_t size) { return free_at(p + 0 * size); }

static bool write_in_child(char *p, size_t size)
{
    loop(p, 1);
    block(size);
    return true;
}

static bool past_in_child(char *p, size_t size)
{
    loop(p + size, 1);
    return freed_unseen(p);
}

static bool double_free_forked(size_t size)
{
    char *p = block(size);
    free(p);
    return in_child(free_in_child, p, size);
}

static bool written_forked(size_t size)
{
    char *p = block(size);
    free(p);
    return in_child(write_in_child, p, size);
}

static bool past_forked(size_t size) { return in_child(past_in_child, block(size), size); }

static bool read_new_posix_memalign(size_t size)
{
    for (int i = 0; i < FEW; i++)
        free(block(size));
    return holds_secret(made(POSIX_MEMALIGN, size), size);
}

static bool reused_by_strdup(size_t size)
{
    char *p = block(size);
    free(p);
    return made(STRDUP, size) == p;
}

/* C23's: a library that has none of them sees no size. */
extern void free_sized(void *, size_t) __attribute__((weak));
extern void free_aligned_sized(void *, size_t, size_t) __attribute__((weak));

static bool sized_free(void *p, size_t size)
{
    free_sized ? free_sized(p, size) : free(p);
    return true;
}

static bool aligned_free(void *p, size_t align, size_t size)
{
    free_aligned_sized ? free_aligned_sized(p, align, size) : free(p);
    return true;
}

static bool sized_free_with_less(size_t size) { return sized_free(block(size), size - 1); }
static bool sized_free_with_more(size_t size) { return sized_free(block(size), size + 1); }
static bool aligned_free_with_less(size_t size) { return aligned_free(opaque(aligned_alloc(64, size)), 64, size - 1); }
static bool aligned_free_of_malloc(size_t size) { return aligned_free(block(size), 64, size); }
static bool aligned_free_with_other_alignment(size_t size) { return aligned_free(opaque(aligned_alloc(64, size)), 32, size); }

#define SIZED "SIGABRT given back as"
#define ALIGNED "SIGABRT given back with an alignment of"
#define TWICE "SIGABRT double free"
#define NOWHERE "SIGABRT no block begins there"
#define PAST "SIGABRT written past its end"
#define BEFORE "SIGABRT written before its beginning|SIGSEGV" /* of the first block in a slab */
#define WRITTEN "SIGABRT written to after it was freed|SIGABRT written before its beginning" /* of its neighbour */
#define FAULT "SIGSEGV poolmalloc: access"

static const misuse cases[] = {
    {"double_free", double_free, TWICE, TWICE, false},
    {"double_free_after_other", double_free_after_other, TWICE, TWICE, false},
    {"double_free_after_many", double_free_after_many, TWICE, TWICE, false},
    {"double_free_after_malloc", double_free_after_malloc, TWICE, TWICE, false},
    {"double_free_of_usual", double_free_of_usual, TWICE, TWICE, false},
    {"double_free_of_usual_after_other", double_free_of_usual_after_other, TWICE, TWICE, false},
    {"double_free_two_owners", double_free_two_owners, TWICE, TWICE, false},
    {"double_free_by_thread", double_free_by_thread, TWICE, TWICE, false},
    {"double_free_of_threads", double_free_of_threads, TWICE, TWICE, false},
    {"double_free_by_realloc", double_free_by_realloc, "SIGABRT freed before", "SIGABRT freed before", false},
    {"double_free_after_realloc", double_free_after_realloc, TWICE, TWICE, false},
    {"usable_size_of_freed", usable_size_of_freed, "SIGABRT freed before", "SIGABRT freed before", false},
    {"free_misaligned", free_misaligned, NOWHERE, NOWHERE, false},
    {"free_inner", free_inner, NOWHERE, NOWHERE, false},
    {"free_quantum_behind", free_quantum_behind, NOWHERE, NOWHERE, false},
    {"free_quantum_before", free_quantum_before, NOWHERE, NOWHERE, false},
    {"free_end", free_end, NOWHERE, NOWHERE, false},
    {"free_page_inside", free_page_inside, NOWHERE, NOWHERE, false},
    {"free_far_behind", free_far_behind, "SIGABRT", "SIG", false},
    {"realloc_inner", realloc_inner, NOWHERE, NOWHERE, false},
    {"free_forged", free_forged, "nothing", "nothing", false},
    {"free_static", free_static, "SIGABRT", "SIGABRT", false},
    {"before_1", before_1, BEFORE, FAULT, false},
    {"before_16", before_16, BEFORE, FAULT, false},
    {"before_32", before_32, BEFORE, FAULT, false},
    {"before_32_memcpy", before_32_memcpy, BEFORE, FAULT, false},
    {"before_32_memset", before_32_memset, BEFORE, FAULT, false},
    {"before_at_32", before_at_32, BEFORE, FAULT, false},
    {"before_never_freed", before_never_freed, "SIG", FAULT, false},
    {"before_between_others", before_between_others, "SIG", FAULT, false},
    {"past_1", past_1, PAST, FAULT, false},
    {"past_1_only", past_1_only, PAST, FAULT, false},
    {"past_1_memcpy", past_1_memcpy, PAST, FAULT, false},
    {"past_1_memset", past_1_memset, PAST, FAULT, false},
    {"past_1_string", past_1_string, PAST, FAULT, false},
    {"past_8", past_8, PAST, FAULT, false},
    {"past_32", past_32, PAST, FAULT, false},
    {"past_32_memcpy", past_32_memcpy, PAST, FAULT, false},
    {"past_32_memset", past_32_memset, PAST, FAULT, false},
    {"past_at_32", past_at_32, "SIGABRT", FAULT, false},
    {"past_never_freed", past_never_freed, PAST, FAULT, false},
    {"past_then_realloc", past_then_realloc, PAST, FAULT, false},
    {"past_calloc", past_calloc, PAST, FAULT, false},
    {"past_aligned", past_aligned, PAST, FAULT, false},
    {"past_realloced", past_realloced, PAST, FAULT, false},
    {"past_into_next", past_into_next, "SIGABRT", FAULT, false},
    {"past_by_thread", past_by_thread, PAST, FAULT, false},
    {"written_then_malloc", written_then_malloc, WRITTEN, FAULT, false},
    {"written_whole_then_malloc", written_whole_then_malloc, WRITTEN, FAULT, false},
    {"written_last_then_malloc", written_last_then_malloc, WRITTEN, FAULT, false},
    {"written_then_free", written_then_free, WRITTEN, FAULT, false},
    {"written_then_much", written_then_much, WRITTEN, FAULT, false},
    {"written_then_end", written_then_end, WRITTEN, FAULT, false},
    {"written_after_realloc", written_after_realloc, WRITTEN, FAULT, false},
    {"written_by_thread", written_by_thread, WRITTEN, FAULT, false},
    {"written_link_plain", written_link_plain, WRITTEN, FAULT, false},
    {"written_link_hidden", written_link_hidden, WRITTEN, FAULT, false},
    {"read_freed", read_freed, "nothing", FAULT, false},
    {"read_after_realloc", read_after_realloc, "nothing", FAULT, false},
    {"read_after_shrink", read_after_shrink, "nothing", FAULT, false},
    {"read_new", read_new, "nothing", "nothing", false},
    {"read_new_smaller", read_new_smaller, "nothing", "nothing", false},
    {"read_new_after_many", read_new_after_many, "nothing", "nothing", false},
    {"read_new_aligned", read_new_aligned, "nothing", "nothing", false},
    {"read_grown", read_grown, "nothing", "nothing", false},
    {"reused_at_once", reused_at_once, "nothing", "nothing", false},
    {"reused_by_smaller", reused_by_smaller, "nothing", "nothing", false},
    {"reused_by_larger", reused_by_larger, "nothing", "nothing", false},
    {"reused_by_few", reused_by_few, "nothing", "nothing", false},
    {"reused_in_turn", reused_in_turn, "nothing", "nothing", false},
    {"reused_by_calloc", reused_by_calloc, "nothing", "nothing", false},
    {"reused_after_realloc", reused_after_realloc, "nothing", "nothing", false},
    {"reused_lifo", reused_lifo, "nothing", "nothing", false},
    {"places_foretold", places_foretold, "nothing", "nothing", false},
    {"zero_read", zero_read, FAULT, FAULT, true},
    {"zero_written", zero_written, FAULT, FAULT, true},
    {"zero_calloc_written", zero_calloc_written, FAULT, FAULT, true},
    {"zero_freed_twice", zero_freed_twice, TWICE, TWICE, true},
    {"zero_reused", zero_reused, "nothing", "nothing", true},
    {"past_calloc_items", past_calloc_items, PAST, FAULT, false},
    {"past_realloc_new", past_realloc_new, PAST, FAULT, false},
    {"past_reallocarray", past_reallocarray, PAST, FAULT, false},
    {"past_strdup", past_strdup, PAST, FAULT, false},
    {"past_thread_s", past_thread_s, PAST, FAULT, false},
    {"past_shrunk", past_shrunk, PAST, FAULT, false},
    {"past_forked", past_forked, PAST, FAULT, false},
    {"past_posix_memalign", past_posix_memalign, PAST, PAST "|" FAULT, false},
    {"past_aligned_alloc", past_aligned_alloc, PAST, PAST "|" FAULT, false},
    {"past_valloc", past_valloc, PAST, PAST "|" FAULT, false},
    {"double_free_calloc", double_free_calloc, TWICE, TWICE, false},
    {"double_free_strdup", double_free_strdup, TWICE, TWICE, false},
    {"double_free_posix_memalign", double_free_posix_memalign, TWICE, TWICE, false},
    {"double_free_valloc", double_free_valloc, TWICE, TWICE, false},
    {"double_free_thread_s", double_free_thread_s, TWICE, TWICE, false},
    {"double_free_of_ended_thread_s", double_free_of_ended_thread_s, TWICE, TWICE, false},
    {"double_free_forked", double_free_forked, TWICE, TWICE, false},
    {"free_inner_aligned", free_inner_aligned, NOWHERE, NOWHERE, false},
    {"free_inner_calloc", free_inner_calloc, NOWHERE, NOWHERE, false},
    {"written_calloc", written_calloc, WRITTEN, FAULT, false},
    {"written_aligned_alloc", written_aligned_alloc, WRITTEN, FAULT, false},
    {"written_thread_s", written_thread_s, WRITTEN, FAULT, false},
    {"written_of_ended_thread_s", written_of_ended_thread_s, WRITTEN, FAULT, false},
    {"written_forked", written_forked, WRITTEN, FAULT, false},
    {"read_new_posix_memalign", read_new_posix_memalign, "nothing", "nothing", false},
    {"reused_by_strdup", reused_by_strdup, "nothing", "nothing", false},
    {"sized_free_with_less", sized_free_with_less, SIZED, SIZED, false},
    {"sized_free_with_more", sized_free_with_more, SIZED, SIZED, false},
    {"aligned_free_with_less", aligned_free_with_less, SIZED, SIZED, false},
    {"aligned_free_of_malloc", aligned_free_of_malloc, ALIGNED, ALIGNED, false},
    {"aligned_free_with_other_alignment", aligned_free_with_other_alignment, ALIGNED, ALIGNED, false},
    {"calloc_wraps", calloc_wraps, "nothing", "nothing", false},
    {"malloc_of_all", malloc_of_all, "nothing", "nothing", false},
    {"realloc_of_all", realloc_of_all, "nothing", "nothing", false},
};

int main(int argc, char **argv) { return misuse_main(cases, sizeof cases / sizeof *cases, argc, argv); }
