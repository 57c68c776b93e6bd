/* fork_touch: a process with 16 MiB of small blocks forks; the child replaces one in sixteen of
 * them, chosen at random, and ends: fork handlers and the copying of pages that bookkeeping causes.
 * Sizes: 16 to 256 B, log-uniform. One operation is one block replaced in a child.
 * Idea: servers that fork to save a snapshot. */
#include "common.h"

#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 1 << 18, REPLACED = BLOCKS / 16 };

static void **blocks;

static void block_replace(uint64_t *random)
{
    void **slot = &blocks[random_below(random, BLOCKS)];
    free(*slot);
    *slot = block_new(random_size(random, 16, 4));
}

static void child_run(uint64_t random)
{
    pid_t pid = fork();
    if (pid == 0) {
        for (unsigned i = 0; i < REPLACED; i++)
            block_replace(&random);
        _exit(0);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
        bench_fail("a child failed");
}

static void run(worker *w)
{
    blocks = memory_map(BLOCKS * sizeof *blocks);
    for (unsigned i = 0; i < BLOCKS; i++)
        blocks[i] = block_new(random_size(&w->random, 16, 4));
    for (; worker_grant(w, REPLACED); w->done += REPLACED)
        child_run(random_next(&w->random));
}

const workload bench_workload = {
    .name = "fork_touch", .purpose = "Forked children replace blocks of a large heap.",
    .run = run, .allocations_per_operation = 1, .defaults = {.threads = 1, .operations = 20 * REPLACED}};
