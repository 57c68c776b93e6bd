/* One function of the family as the first call of a process or of a thread.
 * Arguments: FUNCTION [early|thread]. `early` runs it before any constructor, the preloaded library's included. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdint.h>

#include "check.h"
#include "threads.h"

static void use(void *block, size_t size)
{
    CHECK(block != NULL);
    CHECK((uintptr_t)block % 16 == 0);
    memset(block, 0x5a, size);
    CHECK(malloc_usable_size(block) >= size);
    free(block);
}

static void call_malloc(void) { use(malloc(200), 200); }
static void call_calloc(void) { use(calloc(10, 20), 200); }
static void call_realloc(void) { use(realloc(NULL, 200), 200); }
static void call_reallocarray(void) { use(reallocarray(NULL, 10, 20), 200); }
static void call_aligned_alloc(void) { use(aligned_alloc(64, 128), 128); }
static void call_memalign(void) { use(memalign(256, 100), 100); }
static void call_valloc(void) { use(valloc(100), 100); }
static void call_pvalloc(void) { use(pvalloc(100), 4096); }
static void call_large(void) { use(malloc(1 << 20), 1 << 20); }
static void call_free(void) { free(opaque_pointer(NULL)); }
static void call_usable_size(void) { CHECK(malloc_usable_size(opaque_pointer(NULL)) == 0); }
static void call_trim(void) { CHECK(malloc_trim(0) >= 0); }
static void call_stats(void) { malloc_stats(); }
static void call_mallopt(void) { CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1); }
static void call_mallinfo2(void) { CHECK(mallinfo2().uordblks <= mallinfo2().arena + mallinfo2().hblkhd + ((size_t)1 << 30)); }

static void call_mallinfo(void)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    CHECK(mallinfo().ordblks >= 0);
#pragma GCC diagnostic pop
}

static void call_posix_memalign(void)
{
    void *block = NULL;
    CHECK(posix_memalign(&block, 512, 100) == 0);
    use(block, 100);
}

static void call_malloc_info(void)
{
    static char text[1 << 16];
    FILE *out = fmemopen(text, sizeof text, "w");
    CHECK(out != NULL && malloc_info(0, out) == 0 && fclose(out) == 0);
    CHECK(strncmp(text, "<malloc", 7) == 0);
}

/* Functions that this C library may lack: looked up, and skipped where nobody has them. */
static void *optional(const char *name)
{
    void *function = dlsym(RTLD_DEFAULT, name);
    if (function == NULL)
        _exit(EXIT_SKIPPED);
    return function;
}

static void call_cfree(void) { ((void (*)(void *))optional("cfree"))(NULL); }
static void call_free_sized(void) { ((void (*)(void *, size_t))optional("free_sized"))(NULL, 8); }

static void call_free_aligned_sized(void)
{
    ((void (*)(void *, size_t, size_t))optional("free_aligned_sized"))(NULL, 16, 16);
}

static void call_operator_new(void)
{
    void *(*operator_new)(size_t) = (void *(*)(size_t))optional("_Znwm");
    void (*operator_delete)(void *) = (void (*)(void *))optional("_ZdlPv");
    void *block = operator_new(200);
    CHECK(block != NULL);
    CHECK(malloc_usable_size(block) >= 200);
    operator_delete(block);
}

static const struct { const char *name; void (*call)(void); } functions[] = {
    {"malloc", call_malloc},
    {"calloc", call_calloc},
    {"realloc", call_realloc},
    {"reallocarray", call_reallocarray},
    {"aligned_alloc", call_aligned_alloc},
    {"memalign", call_memalign},
    {"posix_memalign", call_posix_memalign},
    {"valloc", call_valloc},
    {"pvalloc", call_pvalloc},
    {"large", call_large},
    {"free", call_free},
    {"malloc_usable_size", call_usable_size},
    {"cfree", call_cfree},
    {"free_sized", call_free_sized},
    {"free_aligned_sized", call_free_aligned_sized},
    {"malloc_trim", call_trim},
    {"malloc_stats", call_stats},
    {"malloc_info", call_malloc_info},
    {"mallinfo", call_mallinfo},
    {"mallinfo2", call_mallinfo2},
    {"mallopt", call_mallopt},
    {"operator_new", call_operator_new},
};

static void call_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(name, functions[i].name) == 0) {
            errno = 4711;
            functions[i].call();
            CHECKF(errno == 4711, "%s as first call set errno to %d", name, errno);
            return;
        }
    check_failed(__FILE__, __LINE__, "no function %s", name);
}

/* The executable's preinit array runs after relocation and before every constructor. */
static void run_early(int argc, char **argv, char **environment)
{
    (void)environment;
    if (argc == 3 && strcmp(argv[2], "early") == 0)
        call_by_name(argv[1]);
}
__attribute__((section(".preinit_array"), used)) static void (*const early)(int, char **, char **) = run_early;

static void *run_in_thread(void *name)
{
    call_by_name(name);
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    if (argc == 3 && strcmp(argv[2], "thread") == 0)
        thread_run(run_in_thread, argv[1]);
    else
        call_by_name(argv[1]);
    for (size_t size = 1; size < 100000; size += 97)
        use(malloc(size), size);
    return 0;
}
