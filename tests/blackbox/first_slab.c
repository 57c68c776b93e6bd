/* Blocks of the first size that a program asks for all come back, in whatever number there were, and their slab serves another size:
 * nothing that is left of them looks like misuse at the end. A child each; it uses all of its blocks, and no byte more. */
#include "check.h"
#include "process.h"

enum { LATER = 5000 };

static char *blocks[LATER];

static void blocks_make(size_t count, size_t size)
{
    for (size_t i = 0; i < count; i++) {
        CHECK((blocks[i] = malloc(size)) != NULL);
        memset(blocks[i], 7, size);
    }
}

static void blocks_free(size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(blocks[i]);
}

int main(int argc, char **argv)
{
    static const char *const counts[] = {"100", "3000", "3600", "3900", "3968", "4000", "4090", "5000"};
    static const char *const sizes[] = {"16", "48", "4096", "8192", "32768"};
    if (argc == 3) {
        size_t count = (size_t)argument(argc, argv, 1, 0);
        blocks_make(count, 32);
        blocks_free(count);
        blocks_make(LATER, (size_t)argument(argc, argv, 2, 0));
        return 0;
    }
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++) {
            int status;
            pid_t child = fork();
            if (child == 0) {
                execl("/proc/self/exe", argv[0], counts[i], sizes[n], (char *)NULL);
                _exit(127);
            }
            CHECK(waitpid(child, &status, 0) == child);
            CHECKF(status == 0, "%s blocks of 32 bytes, then blocks of %s: status %x", counts[i], sizes[n], (unsigned)status);
        }
    return 0;
}
