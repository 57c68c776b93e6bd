/* A kernel that cannot map at a place without replacing what is there: the pools live in one reservation, made at start.
 * Starts a program under a filter that fails such calls of mmap. Arguments: PROGRAM [ARGUMENT …], or none, when it starts
 * itself and looks for the reservation and the pools. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "check.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static int refuse_places(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])), /* its low half: little-endian only */
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MAP_FIXED_NOREPLACE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EEXIST),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Bytes of the largest mapping that nobody may touch. */
static size_t largest_reservation(void)
{
    char line[512], rights[5];
    uintptr_t from, to;
    size_t largest = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %4s", &from, &to, rights) == 3 && strcmp(rights, "---p") == 0 && to - from > largest)
            largest = to - from;
    fclose(maps);
    return largest;
}

static int look(void)
{
    enum { BLOCKS = 400000 };
    static char *blocks[BLOCKS];
    CHECKF(largest_reservation() >= (size_t)16 << 20, "no reservation");
    for (int i = 0; i < BLOCKS; i++) {
        CHECK((blocks[i] = malloc(100)) != NULL);
        CHECKF(malloc_usable_size(blocks[i]) == 112, "block %d is no pool's", i);
        memset(blocks[i], i, 100);
    }
    for (int i = 0; i < BLOCKS; i++) {
        CHECK(blocks[i][0] == (char)i && blocks[i][99] == (char)i);
        free(blocks[i]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--look") == 0)
        return look();
    if (refuse_places() != 0)
        return EXIT_SKIPPED;
    char *self[] = {argv[0], (char *)(uintptr_t)"--look", NULL};
    char **program = argc > 1 ? argv + 1 : self;
    execv(program[0], program);
    check_failed(__FILE__, __LINE__, "cannot start %s", program[0]);
}
