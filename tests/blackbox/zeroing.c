/* calloc gives zeroes, also from blocks that were dirty, given back to the system, locked, or kept by a failed
 * madvise. Arguments: `locked` (mlockall first), `nomadvise` (madvise fails with EINVAL). */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "check.h"
#include "pattern.h"
#include "process.h"

enum { LARGEST = 70000, BATCH = 4096 };

static void *batch[BATCH];

static void check_zero(void *block, size_t size)
{
    CHECK(block != NULL);
    CHECKF(all_zero(block, size), "calloc(%zu) is not zero", size);
    memset(block, 0xa5, malloc_usable_size(block));
}

/* The block just freed comes back first: dirty in every byte that is usable. */
static void each_size_reused(void)
{
    for (size_t size = 0; size <= LARGEST; size += size < 3000 ? 1 : 37) {
        void *dirty = malloc(size);
        memset(dirty, 0xa5, malloc_usable_size(dirty));
        free(dirty);
        void *block = calloc(size, 1);
        check_zero(block, size);
        free(block);
    }
}

/* Whole slabs dirtied, emptied, perhaps purged, and handed out again for other sizes. */
static void slabs_reused(size_t from, size_t to, bool trim)
{
    for (int i = 0; i < BATCH; i++)
        check_zero(batch[i] = calloc(1, from), from);
    for (int i = 0; i < BATCH; i++)
        free(batch[i]);
    if (trim)
        malloc_trim(0);
    for (int i = 0; i < BATCH; i++)
        check_zero(batch[i] = calloc(to, 1), to);
    for (int i = BATCH; i-- > 0;)
        free(batch[i]);
    if (trim)
        malloc_trim(0);
}

static int refuse_madvise(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    if (strcmp(mode, "locked") == 0 && mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        return EXIT_SKIPPED;
    if (strcmp(mode, "nomadvise") == 0 && refuse_madvise() != 0)
        return EXIT_SKIPPED;
    each_size_reused();
    static const size_t sizes[] = {16, 48, 64, 1000, 1024, 4000, 4096, 5000, 8192, 20000, 32768};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    for (int from = 0; from < SIZES; from++)
        for (int trim = 0; trim < 2; trim++)
            slabs_reused(sizes[from], sizes[(from + 3) % SIZES], trim);
    return 0;
}
