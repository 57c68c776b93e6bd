/* Started with descriptors 0 to 2 closed: the first file it opens becomes one of them. Nothing but what we write
 * may end up there. Arguments: FILE [closefrom]: also closes every descriptor before it ends. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>

#include "check.h"

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    for (int i = 0; i < 3; i++) {
        int fd = open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
        if (fd < 0)
            return 2;
        if (write(fd, "x", 1) != 1)
            return 3;
    }
    for (size_t size = 1; size < 100000; size += 77) {
        void *block = malloc(size);
        if (block == NULL)
            return 4;
        if (size % 2)
            free(block);
    }
    if (argc > 2)
        closefrom(0);
    return 0;
}
