/* Takes N blocks of 40, 136 and 520 bytes in random order, writes all of each, and tells what that took at the peak:
 * three_sizes [N]. Lines NAME BYTES: requested, peak_rss, and under poolmalloc the slabs in memory. */
#include <poolmalloc.h>

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t peak_rss(void)
{
    char line[200];
    size_t kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %zu kB", &kib) == 1)
            break;
    return kib * 1024;
}

static void tell_pools(void)
{
    int (*get)(pm_stats *);
    pm_stats stats = {.struct_size = sizeof stats};
    *(void **)&get = dlsym(RTLD_DEFAULT, "pm_stats_get");
    if (get && get(&stats) == 0)
        printf("resident %zu\ncommitted %zu\n", stats.resident_bytes, stats.committed_bytes);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {40, 136, 520};
    long n = argc > 1 ? atol(argv[1]) : 1000000;
    uint64_t seed = 1, requested = 0;
    void *list = NULL;
    for (long i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t size = sizes[(seed >> 33) % 3];
        void **block = malloc(size);
        if (!block)
            return 1;
        memset(block, 1, size);
        *block = list;
        list = block;
        requested += size;
    }
    printf("requested %llu\npeak_rss %zu\n", (unsigned long long)requested, peak_rss());
    tell_pools();
    while (list) {
        void *next = *(void **)list;
        free(list);
        list = next;
    }
    return 0;
}
