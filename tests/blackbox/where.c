/* Says who serves a small block, for scripts: prints "AT_SECURE pool" or "AT_SECURE next".
 * A small block of the main thread from the C library lies in the heap that brk grows; a pool's never does. */
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/auxv.h>

#include "check.h"

static const char *server(const void *block)
{
    char line[512];
    const char *name = "pool";
    FILE *maps = fopen("/proc/self/maps", "re");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        unsigned long from, to;
        CHECK(sscanf(line, "%lx-%lx", &from, &to) == 2);
        if ((uintptr_t)block - from < to - from && strstr(line, "[heap]") != NULL)
            name = "next";
    }
    fclose(maps);
    return name;
}

int main(void)
{
    void *small = malloc(100);
    CHECK(small != NULL);
    printf("%lu %s\n", getauxval(AT_SECURE), server(small));
    free(small);
    return 0;
}
