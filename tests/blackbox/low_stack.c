/* The first call of the C API is made on a coroutine's stack in static memory of a program at a fixed, low address. */
#include <poolmalloc.h>

#include <ucontext.h>

#include "check.h"

static char stack[1 << 16];
static ucontext_t outside, inside;
static size_t blocks;

static void coroutine(void)
{
    pm_pool_options options = {.struct_size = sizeof options, .block_size = 4096};
    pm_pool *pool = pm_pool_create(&options);
    while (pool && blocks < 100000 && pm_pool_alloc(pool))
        blocks++;
}

int main(void)
{
    CHECK((uintptr_t)stack < (uintptr_t)1 << 32);
    getcontext(&inside);
    inside.uc_stack.ss_sp = stack;
    inside.uc_stack.ss_size = sizeof stack;
    inside.uc_link = &outside;
    makecontext(&inside, coroutine, 0);
    swapcontext(&outside, &inside);
    CHECKF(blocks == 100000, "%zu blocks", blocks);
    return 0;
}
