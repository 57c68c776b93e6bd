/* doctor_file.c: what of a program's file and environment decides whether a preloaded library has a say. May touch files, to read. */
#include "doctor.h"

#include "elf_file.h"
#include "tool.h"
#include "words.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* ---- the program ---- */

static const char *machine_name(unsigned machine)
{
    switch (machine) {
    case EM_X86_64: return "x86-64";
    case EM_AARCH64: return "AArch64";
    case EM_386: return "i386";
    case EM_ARM: return "ARM";
    case EM_RISCV: return "RISC-V";
    default: return "another machine";
    }
}

/* The tool is built as the library is: for the same machine, by the same C library. */
static bool loader_examine(findings *f, const elf_file *e)
{
    elf_file own;
    char ours[256] = "", machine[32] = "";
    if (elf_open(&own, "/proc/self/exe") && own.head) {
        snprintf(ours, sizeof ours, "%s", elf_loader(&own) ? elf_loader(&own) : "");
        snprintf(machine, sizeof machine, "%s", machine_name(own.head->e_machine));
        if (own.head->e_machine != e->head->e_machine)
            find_bad(f, "it is built for %s, and this library for %s: the loader leaves the library out", machine_name(e->head->e_machine), machine);
    }
    elf_close(&own);
    const char *loader = elf_loader(e);
    if (!loader)
        find_bad(f, "it is a static program: no loader, so LD_PRELOAD has no effect; link it with libpoolmalloc-core.a, or build it dynamically");
    else if (*ours && f->hindrances == 0 && strcmp(last_part(loader), last_part(ours)) != 0)
        find_bad(f, "it runs on another C library (%s) than this library was built for (%s): build poolmalloc there", loader, ours);
    return f->hindrances == 0;
}

static void privileges_examine(findings *f, const char *path)
{
    struct stat s;
    if (stat(path, &s) != 0)
        return;
    if ((s.st_mode & S_ISUID && s.st_uid != getuid()) || (s.st_mode & S_ISGID && s.st_mode & S_IXGRP && s.st_gid != getgid()))
        find_bad(f, "it is setuid or setgid: the loader ignores LD_PRELOAD, and the library its settings");
    else if (getuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0)
        find_bad(f, "its file has capabilities: the loader treats it as setuid, and ignores LD_PRELOAD");
}

static void malloc_examine(findings *f, const elf_file *e)
{
    static const char *const sanitizers[] = {"libasan", "libtsan", "libmsan", "liblsan", "libhwasan", "libclang_rt.asan", "libclang_rt.tsan"};
    static const char *const prefixed[] = {"je_malloc", "mi_malloc", "tc_malloc", "rpmalloc", "_rjem_malloc"};
    bool sanitized = elf_find(e, "__sanitizer_get_allocated_size") >= SYMBOL_LOCAL;
    for (size_t i = 0; i < sizeof sanitizers / sizeof *sanitizers; i++)
        sanitized |= elf_needs(e, sanitizers[i]);
    elf_symbol own = elf_find(e, "malloc");
    if (sanitized)
        find_bad(f, "it is built with a sanitizer, which must see every block: malloc's pools switch off");
    else if (own == SYMBOL_EXPORTED)
        find_bad(f, "a malloc is linked into it, and comes before every preloaded one: build it without that");
    else if (own == SYMBOL_LOCAL)
        find_bad(f, "a malloc of its own is linked into it, hidden: nothing can be put in its place");
    for (size_t i = 0; own == SYMBOL_NONE && i < sizeof prefixed / sizeof *prefixed; i++)
        if (elf_find(e, prefixed[i]) == SYMBOL_LOCAL || elf_find(e, prefixed[i]) == SYMBOL_EXPORTED)
            find_hint(f, "another allocator is linked into it (%s): what calls that by its own name does not use the pools", prefixed[i]);
}

/* The first line of a script names the program that is run. */
static bool script_follow(findings *f, const elf_file *e)
{
    char path[256];
    if (e->size < 3 || memcmp(e->bytes, "#!", 2) != 0)
        return false;
    size_t n = 2, used = 0;
    while (n < e->size && (e->bytes[n] == ' ' || e->bytes[n] == '\t'))
        n++;
    for (; n < e->size && used + 1 < sizeof path && !strchr(" \t\n", e->bytes[n]); n++)
        path[used++] = e->bytes[n];
    path[used] = 0;
    find_good(f, "a script, which %s runs", path);
    if (f->count < 4) /* scripts that run each other */
        program_examine(f, path, path);
    return true;
}

void program_examine(findings *f, const char *path, const char *shown)
{
    elf_file e;
    if (!elf_open(&e, path)) {
        find_bad(f, "%s cannot be read", shown);
        return;
    }
    if (!e.head && !script_follow(f, &e)) {
        bool elf = e.size > EI_CLASS && memcmp(e.bytes, ELFMAG, SELFMAG) == 0;
        find_bad(f, elf ? "%s is a program of 32 bits, and this library is of 64" : "%s is no program that this machine runs", shown);
    }
    if (e.head && loader_examine(f, &e)) {
        privileges_examine(f, path);
        malloc_examine(f, &e);
        if (f->hindrances == 0)
            find_good(f, "%s: a dynamic program for this machine and C library", shown);
    }
    elf_close(&e);
}

/* ---- its environment ---- */

static const char *value_of(char *const *environment, const char *name)
{
    size_t n = strlen(name);
    for (; environment && *environment; environment++)
        if (strncmp(*environment, name, n) == 0 && (*environment)[n] == '=')
            return *environment + n + 1;
    return NULL;
}

static findings *complained;
static void complain(const char *line) { find_hint(complained, "%s", line); }

/* What serves small blocks of its own above malloc, and how to have it ask malloc. */
static void runtime_examine(findings *f, char *const *environment, const char *path)
{
    static const struct { const char *program, *variable, *value, *what; } known[] = {
        {"python", "PYTHONMALLOC", "malloc", "Python's own allocator serves blocks up to 512 bytes from arenas of 1 MiB, which go past the pools"},
        {"php", "USE_ZEND_ALLOC", "0", "PHP's own allocator serves blocks from chunks of 2 MiB, which go past the pools"},
    };
    static const char *const heaps[] = {"java", "node", "dotnet"};
    const char *name = last_part(path);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *set = value_of(environment, known[i].variable);
        if (strncmp(name, known[i].program, strlen(known[i].program)) == 0 && (!set || strncmp(set, known[i].value, strlen(known[i].value)) != 0))
            find_hint(f, "%s: %s=%s gives them to the pools", known[i].what, known[i].variable, known[i].value);
    }
    for (size_t i = 0; i < sizeof heaps / sizeof *heaps; i++)
        if (strcmp(name, heaps[i]) == 0)
            find_hint(f, "%s keeps its objects in a heap of its own: the pools serve its native parts alone", name);
}

static void preload_examine(findings *f, char *const *environment)
{
    char entry[1024], *rest = entry, *each;
    const char *list = value_of(environment, "LD_PRELOAD");
    snprintf(entry, sizeof entry, "%s", list ? list : "");
    if (!strstr(entry, "poolmalloc"))
        return;
    while ((each = strsep(&rest, " :")) != NULL) {
        if (!*each || !strchr(each, '/'))
            continue;
        elf_file e = {.head = NULL};
        if (access(each, R_OK) != 0)
            find_bad(f, "LD_PRELOAD names '%s', which cannot be read%s", each, strpbrk(list, " ") ? " (a space or colon ends a name there)" : "");
        else if (!elf_open(&e, each) || !e.head)
            find_bad(f, "LD_PRELOAD names '%s', which is no library of this machine", each);
        elf_close(&e);
    }
}

void environment_examine(findings *f, char *const *environment, const char *path)
{
    config c;
    complained = f;
    config_load(&c, environment, complain);
    if (c.disable)
        find_bad(f, "POOLMALLOC_DISABLE is set: everything is forwarded");
    if (!config_names_program(c.programs, path))
        find_bad(f, "POOLMALLOC_PROGRAMS=%s does not name %s: everything is forwarded", c.programs, last_part(path));
    for (char *const *each = environment; each && *each; each++)
        if (strncmp(*each, "POOLMALLOC_", 11) == 0)
            find_good(f, "set: %s", *each);
    if (c.limit && c.limit < LIMIT_SMALLEST)
        find_hint(f, "POOLMALLOC_LIMIT is below 8 MiB: with many block sizes there is little to share out");
    preload_examine(f, environment);
    runtime_examine(f, environment, path);
}
