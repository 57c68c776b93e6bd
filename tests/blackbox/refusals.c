/* What the kernel has refused is not asked for again with every call. Argument: growth (a foreign mapping behind the region) or
 * locked (locked memory cannot be purged). This program's own syscall() counts what the library asks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "check.h"

enum { CALLS = 20000, FEW = CALLS / 20 };

static long refused; /* mmap and madvise that failed */

long syscall(long number, ...)
{
    static long (*next)(long, ...);
    long a[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "syscall");
    long result = next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (result == -1 && (number == SYS_mmap || number == SYS_madvise))
        __atomic_add_fetch(&refused, 1, __ATOMIC_RELAXED);
    return result;
}

/* The end of the mappings that follow each other from the one with p on. */
static uintptr_t end_behind(const void *p)
{
    uintptr_t low, high, end = (uintptr_t)p;
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx", &low, &high) == 2 && low <= end && end < high)
            end = high;
    fclose(maps);
    return end;
}

static void block(const void *behind)
{
    void *at = (void *)end_behind(behind);
    CHECK(mmap(at, 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == at);
}

static void growth(void)
{
    void *first = malloc(48), *last;
    block(first);
    do {
        CHECK((last = malloc(30000)) != NULL);
    } while ((uintptr_t)last >> 36 == (uintptr_t)first >> 36);
    long before = refused;
    for (int i = 0; i < CALLS; i++)
        CHECK(malloc(30000) != NULL);
    for (int i = 0; i < CALLS; i++)
        free(malloc(20000));
    CHECKF(before > 0, "growth was not refused");
    CHECKF(refused - before < FEW, "%ld calls refused", refused - before);
}

static void locked(void)
{
    static void *blocks[3000];
    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        exit(EXIT_SKIPPED);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 3000; i++)
            CHECK((blocks[i] = malloc(16000)) != NULL);
        for (int i = 0; i < 3000; i++)
            free(blocks[i]);
    }
    CHECKF(refused > 0 && refused < FEW, "%ld calls refused", refused);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    if (strcmp(argv[1], "growth") == 0)
        growth();
    else
        locked();
    return 0;
}
