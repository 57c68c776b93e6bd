/* A program may close pages of its own memory and free it so: what the C library mapped for a block it only unmaps. Page-aligned
 * blocks are therefore neither read nor written when they are freed, and not kept. */
#include <stdlib.h>
#include <sys/mman.h>

#include "check.h"

enum { TIMES = 3 };

static void made_and_freed(size_t bytes, int protection)
{
    void *p = NULL;
    CHECK(posix_memalign(&p, 4096, bytes) == 0);
    memset(p, 1, 4096);
    CHECK(mprotect(p, bytes / 4096 * 4096, protection) == 0);
    free(p);
}

int main(void)
{
    made_and_freed((size_t)1 << 20, PROT_NONE); /* once: the C library may take the next one from its heap, and write there */
    for (int i = 0; i < TIMES; i++) {
        made_and_freed((size_t)40 << 20, PROT_READ);
        made_and_freed((size_t)70 << 20, PROT_NONE);
    }
    return 0;
}
