/* doctor_process.c: who serves malloc in a running process, and how well. May touch its /proc and memory, to read. */
#include "doctor.h"

#include "elf_file.h"
#include "live.h"
#include "tool.h"
#include "words.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAPPINGS_MOST 4096

typedef struct mapping {
    uintptr_t start, end;
    uint64_t offset;
    char *path;
} mapping;

typedef struct mappings {
    size_t count;
    mapping at[MAPPINGS_MOST];
} mappings;

static void mappings_read(mappings *m, pid_t pid)
{
    char path[40], line[4400], file[4200];
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    m->count = 0;
    while (maps && m->count < MAPPINGS_MOST && fgets(line, sizeof line, maps)) {
        mapping *each = &m->at[m->count];
        *file = 0;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %" SCNx64 " %*s %*s %4199[^\n]", &each->start, &each->end, &each->offset, file) < 3)
            continue;
        each->path = strdup(file);
        m->count += each->path != NULL;
    }
    if (maps)
        fclose(maps);
}

static void mappings_free(mappings *m)
{
    while (m->count > 0)
        free(m->at[--m->count].path);
}

static const char *file_at(const mappings *m, uintptr_t address)
{
    for (size_t i = 0; i < m->count; i++)
        if (address >= m->at[i].start && address < m->at[i].end)
            return m->at[i].path;
    return "";
}

static bool is_ours(const char *path) { return strstr(path, "libpoolmalloc") != NULL; }

/* Which file's `name` the object that begins with this mapping calls; "" when it calls none, or has not looked it up yet. */
static const char *function_used(const mappings *m, const mapping *first, const char *name, pid_t pid)
{
    elf_file e;
    uintptr_t target = 0;
    uint64_t slot = elf_open(&e, first->path) && e.head ? elf_slot(&e, name) : 0;
    elf_close(&e);
    struct iovec to = {&target, sizeof target}, from = {(void *)(first->start + slot), sizeof target}; /* NOLINT: another process's address */
    if (slot == 0 || process_vm_readv(pid, &to, 1, &from, 1, 0) != (ssize_t)sizeof target)
        return "";
    const char *file = file_at(m, target);
    return strcmp(file, first->path) == 0 ? "" : file; /* its own lazy stub, or its own function */
}

static void objects_examine(findings *f, const mappings *m, pid_t pid)
{
    size_t ours = 0, others = 0;
    for (size_t i = 0; i < m->count; i++) {
        const mapping *each = &m->at[i];
        if (each->offset != 0 || each->path[0] != '/' || is_ours(each->path) || (i > 0 && strcmp(m->at[i - 1].path, each->path) == 0))
            continue;
        const char *with = function_used(m, each, "malloc", pid);
        with = *with ? with : function_used(m, each, "free", pid);
        ours += is_ours(with);
        if (*with && !is_ours(with) && others++ < 8)
            find_bad(f, "%s calls malloc of %s, not the pools' (loaded with RTLD_DEEPBIND or dlmopen, or one that comes first)", each->path, with);
    }
    if (ours > 0)
        find_good(f, "%zu of %zu objects that call malloc call the pools'", ours, ours + others);
}

/* ---- what the kernel knows ---- */

static bool is_secure(pid_t pid)
{
    char path[40];
    uint64_t pair[2];
    bool secure = false;
    snprintf(path, sizeof path, "/proc/%d/auxv", (int)pid);
    FILE *auxv = fopen(path, "re");
    while (auxv && fread(pair, sizeof pair, 1, auxv) == 1)
        secure |= pair[0] == AT_SECURE && pair[1] != 0;
    if (auxv)
        fclose(auxv);
    return secure;
}

static bool has_filter(pid_t pid)
{
    char path[40], line[256];
    int mode = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *status = fopen(path, "re");
    while (status && fgets(line, sizeof line, status))
        sscanf(line, "Seccomp: %d", &mode);
    if (status)
        fclose(status);
    return mode != 0;
}

/* As it was when the program began. */
static char **environment_of(pid_t pid, char *bytes, size_t room)
{
    static char *list[4096];
    char path[40];
    size_t n = 0;
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    FILE *file = fopen(path, "re");
    size_t got = file ? fread(bytes, 1, room - 1, file) : 0;
    if (file)
        fclose(file);
    bytes[got] = 0;
    for (char *at = bytes; at < bytes + got && n + 1 < sizeof list / sizeof *list; at += strlen(at) + 1)
        list[n++] = at;
    list[n] = NULL;
    return list;
}

static bool preload_names_us(char *const *environment)
{
    for (; *environment; environment++)
        if (strncmp(*environment, "LD_PRELOAD=", 11) == 0 && strstr(*environment, "poolmalloc"))
            return true;
    return false;
}

/* ---- how well they serve ---- */

static void limits_examine(findings *f, const pm_stats *s)
{
    if (s->limit_hits)
        find_hint(f, "POOLMALLOC_LIMIT refused memory %zu times: raise it, or see poolmalloc stat for what takes it", s->limit_hits);
    if (s->forwarded_small_calls)
        find_hint(f, "%zu small requests went to the next allocator for want of pool memory", s->forwarded_small_calls);
    size_t held = s->resident_bytes > s->used_bytes ? s->resident_bytes - s->used_bytes : 0;
    if (held > 1024 * 1024 && held > s->resident_bytes / 4)
        find_hint(f, "%s of the pools' %s in memory are free blocks and ends of slabs: poolmalloc tune finds block sizes that hold less",
                  HUMAN_LONG(held), HUMAN_LONG(s->resident_bytes));
}

static void pools_examine(findings *f, pid_t pid, bool filtered)
{
    static live l;
    static pm_stats s;
    live_result result = live_open(&l, pid);
    if (result == LIVE_STARTING)
        find_bad(f, filtered ? "the pools could not come up: a seccomp filter is on, which may refuse mmap or madvise"
                             : "the pools are not up: it starts, or could map no memory (ulimit -v, a cgroup's limit)");
    else if (result != LIVE_FOUND)
        find_bad(f, "%s", live_explain(result));
    if (result != LIVE_FOUND)
        return;
    if (live_take(&l) == LIVE_FOUND) {
        stats_gather_from(&l.view, &s);
        find_good(f, "pools serve it: %s in use, %s in memory, next allocator %s", HUMAN_LONG(s.used_bytes), HUMAN_LONG(s.resident_bytes), l.next);
        limits_examine(f, &s);
    }
    live_close(&l);
}

void process_examine(findings *f, pid_t pid)
{
    static mappings m;
    static char environment_bytes[1 << 18];
    char link[40], path[4096];
    control c;
    snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    live_result found = live_find(pid, &c);
    if (found == LIVE_NO_PROCESS || found == LIVE_EMPTY || found == LIVE_NO_PERMISSION) {
        find_bad(f, "%s", live_explain(found));
        return;
    }
    bool filtered = has_filter(pid);
    char **environment = environment_of(pid, environment_bytes, sizeof environment_bytes);
    mappings_read(&m, pid);
    bool loaded = false;
    for (size_t i = 0; i < m.count; i++)
        loaded |= is_ours(m.at[i].path);
    program_examine(f, link, path);
    environment_examine(f, environment, path);
    if (is_secure(pid))
        find_bad(f, "it was started with more rights than its caller has (AT_SECURE): LD_PRELOAD and all settings are ignored");
    if (found == LIVE_FOUND)
        pools_examine(f, pid, filtered);
    else if (loaded && f->hindrances == 0)
        find_bad(f, filtered ? "the library is loaded and has no pools: a seccomp filter is on, which may refuse mmap or madvise"
                             : "the library is loaded and has no pools: switched off (valgrind, a sanitizer), or no memory could be mapped");
    else if (!loaded && f->hindrances == 0)
        find_bad(f, preload_names_us(environment) ? "LD_PRELOAD names the library, and the loader has not loaded it: see its line on stderr"
                                                  : "LD_PRELOAD did not name the library when it began: poolmalloc run, or Environment= of a service, sets it");
    if (loaded)
        objects_examine(f, &m, pid);
    mappings_free(&m);
}
