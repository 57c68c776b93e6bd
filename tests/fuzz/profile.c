/* profile.c: a file that says it is a profile, read as `poolmalloc tune` does. The first byte 0: the rest is the file. Else it is a
 * sound profile with changes: ten bytes each, a place and what lies there; a place beyond its end cuts it or makes it longer.
 * What is read adds up and can be planned for. */
#include "insight/profile.h"
#include "tune.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CHANGE = 10, WORDS = sizeof(profile_file) / 8 };

static profile_file made;
static char path[40];
static int file = -1;

static void sound_make(void)
{
    memset(&made, 0, sizeof made);
    memcpy(made.head.magic, PROFILE_MAGIC, sizeof PROFILE_MAGIC);
    made.head.version = PROFILE_VERSION;
    made.head.rows = PROFILE_ROWS;
    made.head.quantum = QUANTUM;
    strcpy(made.head.program, "program");
    for (size_t i = 0; i < 12; i++)
        made.row[i * i * 3] = (profile_row){.calls = 100 * i, .live = i, .most = 2 * i};
}

/* Places are words of the file; small ones, where the head and the rows in use are, are as likely as all others. */
static size_t changes_make(const uint8_t *data, size_t size)
{
    size_t bytes = sizeof made;
    for (; size >= CHANGE; data += CHANGE, size -= CHANGE) {
        size_t at = (size_t)data[0] | (size_t)data[1] << 8;
        if (at < WORDS)
            memcpy((char *)&made + at * 8, data + 2, 8);
        else
            bytes = at % 2 ? sizeof made + 1 + data[2] : sizeof made - (size_t)data[2] * data[3] - 1;
    }
    return bytes;
}

static void file_write(const void *from, size_t bytes)
{
    static const char rest[300];
    if (file < 0) {
        file = memfd_create("profile", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
        stderr = fopen("/dev/null", "we"); /* faults are told there, a line each; libFuzzer keeps the old one */
    }
    size_t head = bytes < sizeof made ? bytes : sizeof made;
    if (ftruncate(file, 0) != 0 || pwrite(file, from, head, 0) != (ssize_t)head ||
        (bytes > head && pwrite(file, rest, bytes - head, (off_t)head) < 0))
        abort();
}

static void plan_check(const profiles *all)
{
    search *s = search_run(&all->sum, BLOCK_MAX);
    if (!s)
        return;
    plan p = search_plan(s, search_knee(s));
    char line[PLAN_POOLS * 40];
    plan_count(&p, all->each, all->n);
    if (plan_print(&p, line, sizeof line) != strlen(line) || p.pools == 0 || p.size[p.pools - 1] > BLOCK_MAX)
        abort();
    plan_waste(&all->sum, &p);
    group groups[GROUPS_MAX];
    if (groups_make(&all->sum, groups) > GROUPS_MAX)
        abort();
    search_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    profiles all = {.n = 0};
    if (size == 0 || size > sizeof made)
        return 0;
    if (data[0] == 0) {
        file_write(data + 1, size - 1);
    } else {
        sound_make();
        size_t bytes = changes_make(data + 1, size - 1);
        file_write(&made, bytes);
    }
    bool good = profiles_add(&all, path);
    if (good != (all.n == 1) || (good && !memchr(all.process[0].program, 0, sizeof all.process[0].program)))
        abort();
    if (good)
        plan_check(&all);
    profiles_free(&all);
    return 0;
}
