/* At a small limit an aligned request may be met from a larger class, or elsewhere: it is aligned, keeps what is written, and is NULL
 * never. */
#include <malloc.h>

#include "check.h"
#include "pattern.h"

enum { LIVE = 300, ROUNDS = 20000, SHIFTS = 14, SMALL = 4000, LARGE = 300000 };

typedef struct { char *bytes; size_t size; } Block;

static Block block_make(Random *random)
{
    size_t align = (size_t)16 << random_below(random, SHIFTS), size = 1 + random_below(random, random_below(random, 10) ? SMALL : LARGE);
    char *p = memalign(align, size);
    CHECKF(p != NULL && (uintptr_t)p % align == 0, "memalign(%zu, %zu) is %p", align, size, (void *)p);
    pattern_stamp(p, size, size);
    return (Block){p, size};
}

int main(void)
{
    static Block blocks[LIVE];
    Random random = {1};
    for (int i = 0; i < ROUNDS; i++) {
        Block *b = &blocks[random_below(&random, LIVE)];
        CHECK(b->bytes == NULL || pattern_stamped(b->bytes, b->size, b->size, b->size));
        free(b->bytes);
        *b = block_make(&random);
    }
    return 0;
}
