/* doctor_process.c: who serves malloc in a running process, and how well. May touch its /proc and memory, to read. */
#include "doctor.h"

#include "elf_file.h"
#include "live.h"
#include "proc.h"
#include "tool.h"
#include "words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAPPINGS_MOST 4096

/* What of the process's mappings is a file's. */
typedef struct object {
    uintptr_t start, end;
    uint64_t offset;
    char *path;
} object;

typedef struct objects {
    size_t count;
    object at[MAPPINGS_MOST];
} objects;

static void objects_read(objects *o, pid_t pid)
{
    mapping m;
    FILE *maps = proc_open(pid, "maps");
    o->count = 0;
    while (maps && o->count < MAPPINGS_MOST && mapping_next(maps, &m))
        if (m.path[0] == '/')
            o->at[o->count++] = (object){m.start, m.end, m.offset, need(strdup(m.path))};
    if (maps)
        fclose(maps);
}

static void objects_free(objects *o)
{
    while (o->count > 0)
        free(o->at[--o->count].path);
}

static const char *file_at(const objects *o, uintptr_t address)
{
    for (size_t i = 0; i < o->count; i++)
        if (address >= o->at[i].start && address < o->at[i].end)
            return o->at[i].path;
    return "";
}

static bool is_ours(const char *path) { return strstr(path, "libpoolmalloc") != NULL; }

/* Which file's `name` the object that begins with this mapping calls; "" when it calls none, or has not looked it up yet. */
static const char *slot_file(const objects *o, const object *first, const char *name, pid_t pid)
{
    elf_file e;
    uintptr_t target = 0;
    uint64_t slot = elf_open(&e, first->path) && e.head ? elf_slot(&e, name) : 0;
    elf_close(&e);
    if (slot == 0 || live_read(pid, (const void *)(first->start + slot), &target, sizeof target) != LIVE_FOUND) /* NOLINT: another process's */
        return "";
    const char *file = file_at(o, target);
    return strcmp(file, first->path) == 0 ? "" : file; /* its own lazy stub, or its own function */
}

/* The same, by way of a program's stub: where one at a fixed address takes the address of `name`, all others call that. */
static const char *function_used(const objects *o, const object *first, const char *name, pid_t pid)
{
    elf_file e;
    const char *file = slot_file(o, first, name, pid);
    bool stub = *file && elf_open(&e, file) && elf_find(&e, name) == SYMBOL_WANTED;
    if (*file)
        elf_close(&e);
    for (size_t i = 0; stub && i < o->count; i++)
        if (strcmp(o->at[i].path, file) == 0)
            return slot_file(o, &o->at[i], name, pid);
    return file;
}

static void objects_examine(findings *f, const objects *o, pid_t pid)
{
    size_t ours = 0, others = 0;
    for (size_t i = 0; i < o->count; i++) {
        const object *each = &o->at[i];
        if (each->offset != 0 || is_ours(each->path) || (i > 0 && strcmp(o->at[i - 1].path, each->path) == 0))
            continue;
        const char *with = function_used(o, each, "malloc", pid);
        with = *with ? with : function_used(o, each, "free", pid);
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
    uint64_t pairs[65][2] = {{AT_NULL}};
    size_t n = proc_read(pid, "auxv", (char *)pairs, sizeof pairs) / sizeof *pairs;
    bool secure = false;
    for (size_t i = 0; i < n; i++)
        secure |= pairs[i][0] == AT_SECURE && pairs[i][1] != 0;
    return secure;
}

static bool has_filter(pid_t pid)
{
    char status[8192];
    proc_read(pid, "status", status, sizeof status);
    const char *mode = strstr(status, "\nSeccomp:");
    return mode && strtol(mode + strlen("\nSeccomp:"), NULL, 10) != 0;
}

/* As it was when the program began. */
static char **environment_of(pid_t pid, char *bytes, size_t room)
{
    static char *list[4096];
    size_t n = 0, got = proc_read(pid, "environ", bytes, room);
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
    static objects o;
    static char environment_bytes[1 << 18];
    char link[40], path[PATH_MAX];
    control c;
    snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
    program_read(pid, path);
    live_result found = live_find(pid, &c);
    if (found == LIVE_NO_PROCESS || found == LIVE_EMPTY || found == LIVE_NO_PERMISSION) {
        find_bad(f, "%s", live_explain(found));
        return;
    }
    bool filtered = has_filter(pid);
    char **environment = environment_of(pid, environment_bytes, sizeof environment_bytes);
    objects_read(&o, pid);
    bool loaded = false;
    for (size_t i = 0; i < o.count; i++)
        loaded |= is_ours(o.at[i].path);
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
        objects_examine(f, &o, pid);
    objects_free(&o);
}
