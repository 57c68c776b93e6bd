/* one_size.c: MIB SIZE…: so much memory of blocks of these sizes in a random order, every byte touched; prints what is resident, in KiB,
 * and goes on when its input ends. Without a preloaded library: what the C library takes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long resident(void)
{
    long all = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld %ld", &all, &pages) != 2)
        abort();
    fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

int main(int argc, char **argv)
{
    size_t left = strtoul(argv[1], NULL, 0) << 20;
    for (unsigned x = 12345; left > 0; x = x * 1103515245 + 12345) {
        size_t size = strtoul(argv[2 + (x >> 16) % (unsigned)(argc - 2)], NULL, 0);
        char *p = malloc(size);
        if (!p)
            abort();
        memset(p, 1, size);
        left -= size < left ? size : left;
    }
    printf("%ld\n", resident());
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}
