/* Loads the allocator late, into a process whose threads already allocate from another one, uses it by its symbols,
 * and lets it go again. Arguments: the library's path [global]. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "check.h"
#include "pattern.h"
#include "threads.h"

enum { THREADS = 4 };

typedef struct {
    void *(*malloc)(size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    size_t (*usable)(void *);
} Family;

static _Atomic(Family *) loaded;
static atomic_bool stop;

static void use_family(const Family *family, size_t size)
{
    char *block = family->malloc(size);
    CHECK(block != NULL && family->usable(block) >= size);
    pattern_stamp(block, size, size);
    CHECK((block = family->realloc(block, size * 2)) != NULL);
    CHECK(pattern_stamped(block, size, size, size));
    family->free(block);
    family->free(malloc(size)); /* a block of the process's own allocator: foreign there */
}

/* Threads older than the library, which leave through whatever it hooks at thread exit. */
static void *churn(void *unused)
{
    for (size_t i = 0; !atomic_load(&stop); i++) {
        free(malloc(i % 3000 + 1));
        Family *family = atomic_load(&loaded);
        if (family != NULL && i % 16 == 0)
            use_family(family, i % 50000 + 1);
    }
    return unused;
}

/* A thread that comes and goes while the library is there. */
static void *visit(void *family)
{
    for (size_t size = 1; size < 40000; size = size * 2 + 1)
        use_family(family, size);
    return NULL;
}

static Family family_of(void *library)
{
    Family family = {(void *(*)(size_t))dlsym(library, "malloc"), (void *(*)(void *, size_t))dlsym(library, "realloc"),
                     (void (*)(void *))dlsym(library, "free"), (size_t (*)(void *))dlsym(library, "malloc_usable_size")};
    CHECK(family.malloc != NULL && family.realloc != NULL && family.free != NULL && family.usable != NULL);
    return family;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        threads[i] = thread_start(churn, NULL);
    void *library = dlopen(argv[1], RTLD_NOW | (argc > 2 ? RTLD_GLOBAL : RTLD_LOCAL));
    CHECKF(library != NULL, "dlopen: %s", dlerror());
    Family family = family_of(library);
    atomic_store(&loaded, &family);
    for (size_t size = 1; size < 200000; size += size / 9 + 1)
        use_family(&family, size);
    for (int i = 0; i < 200; i++)
        thread_run(visit, &family);
    atomic_store(&stop, true);
    for (int i = 0; i < THREADS; i++)
        thread_join(threads[i]);
    CHECK(dlclose(library) == 0);
    for (size_t size = 1; size < 100000; size += 100)
        free(malloc(size));
    return 0;
}
