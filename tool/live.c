/* live.c: see live.h. */
#include "live.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

bool live_read(pid_t pid, const void *from, void *to, size_t bytes)
{
    struct iovec local = {to, bytes}, remote = {(void *)(uintptr_t)from, bytes};
    return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)bytes;
}

/* A private, writable mapping without a file may begin with a control page. */
static bool mapping_may_be(const char *line, uintptr_t *start)
{
    char permissions[8];
    unsigned long inode;
    int fields = sscanf(line, "%" SCNxPTR "-%*x %7s %*x %*s %lu", start, permissions, &inode);
    return fields == 3 && strcmp(permissions, "rw-p") == 0 && inode == 0;
}

live_result live_find(pid_t pid, control *found)
{
    char path[40], line[512];
    live_result result = LIVE_NO_POOLS;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    if (!maps)
        return errno == EACCES ? LIVE_NO_PERMISSION : LIVE_NO_PROCESS;
    while (result != LIVE_FOUND && fgets(line, sizeof line, maps)) {
        uintptr_t start;
        if (!mapping_may_be(line, &start))
            continue;
        if (live_read(pid, (const void *)start, found, sizeof *found)) /* NOLINT: an address of another process */
            result = memcmp(found->magic, CONTROL_MAGIC, sizeof CONTROL_MAGIC) == 0 ? LIVE_FOUND : result;
        else if (errno == EPERM)
            result = LIVE_NO_PERMISSION;
    }
    if (ferror(maps))
        result = LIVE_NO_PERMISSION;
    fclose(maps);
    return result;
}

const char *live_explain(live_result result)
{
    static const char *const texts[] = {
        [LIVE_FOUND] = "runs on pools",
        [LIVE_NO_PROCESS] = "there is no such process",
        [LIVE_NO_PERMISSION] = "no permission to read its memory (another user's, or kernel.yama.ptrace_scope)",
        [LIVE_NO_POOLS] = "runs without poolmalloc",
    };
    return texts[result];
}
