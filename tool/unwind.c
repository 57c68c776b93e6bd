/* unwind.c: see unwind.h. */
#include "unwind.h"

#include "ground/text.h"
#include "proc.h"
#include "tool.h"
#include "words.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>
#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 400
#define EXPANSION 8     /* functions at one address, by inlining */
#define REFRESH_MS 200  /* between two looks for files that the process has loaded since */
#define REGIONS_MOST 1024

/* What is known of an address. */
typedef struct place {
    uint64_t pc;
    uint32_t count, names[EXPANSION];
} place;

/* Code of no file: a compiler at run time has made it. */
typedef struct region {
    uint64_t start, end;
} region;

struct unwinder {
    pid_t pid;
    bool lines;
    Dwfl *dwfl;
    uint64_t refreshed;
    region made[REGIONS_MOST];
    size_t made_count;
    uint32_t made_name;
    frame_name **names;
    size_t name_count, name_room;
    void *by_text, *places; /* trees of names, and of places by pc */
    size_t unnamed;
    /* the walk that goes on */
    const who_sample *sample;
    const char *stack;
    uint64_t pcs[FRAMES_MOST];
    size_t depth;
    bool missed; /* looking for the last one's caller, libdw came to what was not copied */
};

/* ---- names ---- */

static int name_order(const void *left, const void *right)
{
    const frame_name *a = left, *b = right;
    return a->of_library != b->of_library ? a->of_library - b->of_library : strcmp(a->text, b->text);
}

static uint32_t name_add(unwinder *u, const char *chars, bool known, bool library)
{
    const frame_name sought = {.text = (char *)(uintptr_t)chars, .of_library = library};
    frame_name **found = tfind(&sought, &u->by_text, name_order);
    if (found)
        return (*found)->number;
    frame_name *n = need(malloc(sizeof *n));
    *n = (frame_name){need(strdup(chars)), known, library, (uint32_t)u->name_count};
    need(tsearch(n, &u->by_text, name_order));
    u->names = grown(u->names, u->name_count, &u->name_room, sizeof *u->names);
    u->names[u->name_count++] = n;
    return n->number;
}

uint32_t unwinder_intern(unwinder *u, const char *chars)
{
    char clean[NAME_BYTES];
    name_clean(chars, clean, sizeof clean);
    return name_add(u, clean, true, false);
}

const frame_name *unwinder_name(const unwinder *u, uint32_t number) { return u->names[number]; }
size_t unwinder_unnamed(const unwinder *u) { return u->unnamed; }

/* Shorter, in place: the one long name that everybody writes as another, and the version of a symbol. */
static void name_shorten(char *name)
{
    static const char string[] = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >";
    for (char *at; (at = strstr(name, string)) != NULL;) {
        memcpy(at, "std::string", 11);
        memmove(at + 11, at + sizeof string - 1, strlen(at + sizeof string - 1) + 1);
    }
    name[strcspn(name, "@")] = 0;
}

/* "name" or "name (file:line)", demangled, fit to be shown. */
static uint32_t function_name(unwinder *u, const char *symbol, const char *file, int line, bool library)
{
    char clean[NAME_BYTES], with_line[NAME_BYTES + 120];
    char *plain = demangle(symbol);
    if (!plain)
        plain = need(strdup(symbol));
    name_shorten(plain);
    name_clean(plain, clean, sizeof clean);
    free(plain);
    if (!u->lines || !file || line <= 0)
        return name_add(u, clean, true, library);
    char place_clean[100];
    name_clean(last_part(file), place_clean, sizeof place_clean);
    snprintf(with_line, sizeof with_line, "%s (%s:%d)", clean, place_clean, line);
    return name_add(u, with_line, true, library);
}

/* ---- what an address is ---- */

static const char *module_base(Dwfl_Module *module)
{
    const char *name = module ? dwfl_module_info(module, NULL, NULL, NULL, NULL, NULL, NULL, NULL) : NULL;
    return last_part(name ? name : "");
}

static uint32_t unnamed_name(unwinder *u, Dwfl_Module *module, uint64_t pc)
{
    char chars[NAME_BYTES], clean[NAME_BYTES];
    Dwarf_Addr start = 0, end = 0;
    if (module)
        dwfl_module_info(module, NULL, &start, &end, NULL, NULL, NULL, NULL);
    if (pc >= start && pc < end)
        snprintf(chars, sizeof chars, "%s+0x%" PRIx64, module_base(module), pc - start);
    else
        snprintf(chars, sizeof chars, "0x%" PRIx64, pc);
    name_clean(chars, clean, sizeof clean);
    return name_add(u, clean, false, strncmp(module_base(module), "libpoolmalloc", 13) == 0);
}

static const char *die_symbol(Dwarf_Die *die)
{
    Dwarf_Attribute attribute;
    const char *linkage = dwarf_formstring(dwarf_attr_integrate(die, DW_AT_linkage_name, &attribute));
    return linkage ? linkage : dwarf_diename(die);
}

/* The functions that were inlined at pc, innermost first; the last one is what the symbol table names. Returns the line in
 * which each of them was called. */
static void inlined_add(unwinder *u, place *p, Dwfl_Module *module, const char **file, int *line, bool library)
{
    Dwarf_Addr bias;
    Dwarf_Die *unit = dwfl_module_addrdie(module, p->pc, &bias), *innermost = NULL, *scopes = NULL;
    int count = unit ? dwarf_getscopes(unit, p->pc - bias, &innermost) : 0;
    count = count > 0 ? dwarf_getscopes_die(&innermost[0], &scopes) : 0; /* by callers, not by where it is written */
    Dwarf_Files *files = NULL;
    if (unit)
        dwarf_getsrcfiles(unit, &files, NULL);
    for (int i = 0; i < count && p->count < EXPANSION - 1; i++) {
        if (dwarf_tag(&scopes[i]) != DW_TAG_inlined_subroutine)
            continue;
        const char *symbol = die_symbol(&scopes[i]);
        if (symbol)
            p->names[p->count++] = function_name(u, symbol, *file, *line, library);
        Dwarf_Attribute attribute;
        Dwarf_Word number = 0;
        if (dwarf_formudata(dwarf_attr(&scopes[i], DW_AT_call_file, &attribute), &number) == 0 && files)
            *file = dwarf_filesrc(files, number, NULL, NULL);
        if (dwarf_formudata(dwarf_attr(&scopes[i], DW_AT_call_line, &attribute), &number) == 0)
            *line = (int)number;
    }
    free(innermost);
    free(scopes);
}

static bool is_made(const unwinder *u, uint64_t pc)
{
    for (size_t i = 0; i < u->made_count; i++)
        if (pc >= u->made[i].start && pc < u->made[i].end)
            return true;
    return false;
}

static void place_look(unwinder *u, place *p)
{
    Dwfl_Module *module = dwfl_addrmodule(u->dwfl, p->pc);
    GElf_Off offset;
    GElf_Sym sym;
    const char *symbol = module ? dwfl_module_addrinfo(module, p->pc, &offset, &sym, NULL, NULL, NULL) : NULL;
    bool library = strncmp(module_base(module), "libpoolmalloc", 13) == 0;
    const char *file = NULL;
    int line = 0;
    Dwfl_Line *source = module ? dwfl_module_getsrc(module, p->pc) : NULL;
    if (source)
        file = dwfl_lineinfo(source, NULL, &line, NULL, NULL, NULL);
    if (module && !library)
        inlined_add(u, p, module, &file, &line, library);
    bool believed = symbol && (sym.st_size == 0 ? offset < 4096 : offset < sym.st_size), made = !believed && is_made(u, p->pc);
    u->unnamed += !believed && !made && !library;
    p->names[p->count++] = made ? u->made_name : believed ? function_name(u, symbol, file, line, library) : unnamed_name(u, module, p->pc);
}

static int place_order(const void *left, const void *right)
{
    const place *a = left, *b = right;
    return (a->pc > b->pc) - (a->pc < b->pc);
}

static const place *place_of(unwinder *u, uint64_t pc)
{
    const place sought = {.pc = pc};
    place **found = tfind(&sought, &u->places, place_order);
    if (found)
        return *found;
    if (!dwfl_addrmodule(u->dwfl, pc) && os_now_ms() - u->refreshed > REFRESH_MS)
        unwinder_refresh(u);
    place *p = need(calloc(1, sizeof *p));
    p->pc = pc;
    place_look(u, p);
    need(tsearch(p, &u->places, place_order));
    return p;
}

/* ---- the walk ---- */

static pid_t thread_next(Dwfl *dwfl, void *context, void **thread)
{
    (void)dwfl;
    const unwinder *u = context;
    if (*thread)
        return 0;
    *thread = context;
    return u->pid;
}

static bool thread_get(Dwfl *dwfl, pid_t thread, void *context, void **found)
{
    (void)dwfl;
    (void)thread;
    *found = context;
    return true;
}

/* Only what was copied: the rest of the process has gone on since. */
static bool memory_read(Dwfl *dwfl, Dwarf_Addr at, Dwarf_Word *word, void *context)
{
    (void)dwfl;
    unwinder *u = context;
    uint64_t offset = at - u->sample->registers.sp;
    if (offset > u->sample->stack_bytes || u->sample->stack_bytes - offset < sizeof *word) {
        u->missed = true;
        return false;
    }
    memcpy(word, u->stack + offset, sizeof *word);
    return true;
}

/* In DWARF's order: rax rdx rcx rbx rsi rdi rbp rsp r8 … r15 rip. */
static bool registers_set(Dwfl_Thread *thread, void *context)
{
    const unwinder *u = context;
    const os_registers *r = &u->sample->registers;
    Dwarf_Word words[17] = {[3] = r->saved[1], [6] = r->saved[0], [7] = r->sp,        [12] = r->saved[2],
                            [13] = r->saved[3], [14] = r->saved[4], [15] = r->saved[5], [16] = r->pc};
    return dwfl_thread_state_registers(thread, 0, 17, words);
}

static int frame_note(Dwfl_Frame *frame, void *context)
{
    unwinder *u = context;
    Dwarf_Addr pc;
    bool exact = false;
    u->missed = false;
    if (!dwfl_frame_pc(frame, &pc, &exact) || u->depth == FRAMES_MOST)
        return DWARF_CB_ABORT;
    if (pc == 0)
        return DWARF_CB_ABORT;
    u->pcs[u->depth++] = exact ? pc : pc - 1;
    return DWARF_CB_OK;
}

static bool is_library(unwinder *u, uint64_t pc)
{
    const place *p = place_of(u, pc); /* which may move u->names */
    return u->names[p->names[0]]->of_library;
}

/* Of calls from made code to made code one frame is left. */
static size_t name_put(const unwinder *u, uint32_t name, uint32_t *names, size_t count, size_t most)
{
    if (count == most || (name == u->made_name && count > 0 && names[count - 1] == name))
        return count;
    names[count] = name;
    return count + 1;
}

size_t unwinder_walk(unwinder *u, const who_sample *s, const void *stack, uint32_t *names, size_t most, bool *cut)
{
    size_t count = 0, first = 0;
    u->sample = s;
    u->stack = stack;
    u->depth = 0;
    u->missed = false;
    if (!dwfl_addrmodule(u->dwfl, s->registers.pc))
        unwinder_refresh(u);
    *cut = s->stack_bytes == 0 || dwfl_getthread_frames(u->dwfl, u->pid, frame_note, u) != 0;
    *cut = *cut || u->missed; /* libdw takes such a frame for the outermost one */
    while (first < u->depth && is_library(u, u->pcs[first]))
        first++;
    for (size_t i = first; i < u->depth; i++) {
        const place *p = place_of(u, u->pcs[i]);
        for (uint32_t k = 0; k < p->count; k++)
            count = name_put(u, p->names[k], names, count, most);
    }
    return count;
}

/* ---- open, close ---- */

static void made_read(unwinder *u)
{
    mapping m;
    FILE *maps = proc_open(u->pid, "maps");
    if (!maps)
        return;
    u->made_count = 0;
    while (u->made_count < REGIONS_MOST && mapping_next(maps, &m))
        if (m.rights[2] == 'x' && (!*m.path || strncmp(m.path, "[anon", 5) == 0 || strncmp(m.path, "/memfd:", 7) == 0))
            u->made[u->made_count++] = (region){m.start, m.end};
    fclose(maps);
}

void unwinder_refresh(unwinder *u)
{
    u->refreshed = os_now_ms();
    made_read(u);
    dwfl_report_begin_add(u->dwfl);
    dwfl_linux_proc_report(u->dwfl, u->pid);
    dwfl_report_end(u->dwfl, NULL, NULL);
}

unwinder *unwinder_open(pid_t pid, bool lines)
{
    static const Dwfl_Callbacks files = {.find_elf = dwfl_linux_proc_find_elf, .find_debuginfo = dwfl_standard_find_debuginfo};
    static const Dwfl_Thread_Callbacks threads = {
        .next_thread = thread_next, .get_thread = thread_get, .memory_read = memory_read, .set_initial_registers = registers_set};
    unsetenv("DEBUGINFOD_URLS"); /* no names from the network */
    unwinder *u = need(calloc(1, sizeof *u));
    u->pid = pid;
    u->lines = lines;
    u->made_name = name_add(u, "[jit]", true, false);
    u->dwfl = dwfl_begin(&files);
    if (u->dwfl) {
        unwinder_refresh(u);
        if (dwfl_attach_state(u->dwfl, NULL, pid, &threads, u))
            return u;
    }
    unwinder_close(u);
    return NULL;
}

static void name_free(void *name)
{
    free(((frame_name *)name)->text);
    free(name);
}

void unwinder_close(unwinder *u)
{
    if (u->dwfl)
        dwfl_end(u->dwfl);
    tdestroy(u->by_text, name_free);
    tdestroy(u->places, free);
    free(u->names);
    free(u);
}
