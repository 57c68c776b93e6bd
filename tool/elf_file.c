/* elf_file.c: see elf_file.h. May touch the file, to read. */
#include "elf_file.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool elf_open(elf_file *e, const char *path)
{
    struct stat s;
    memset(e, 0, sizeof *e);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    void *at = fstat(fd, &s) == 0 && s.st_size > 0 ? mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    if (at == MAP_FAILED)
        return false;
    e->bytes = at;
    e->size = (size_t)s.st_size;
    if (e->size >= sizeof(Elf64_Ehdr) && memcmp(at, ELFMAG, SELFMAG) == 0 && e->bytes[EI_CLASS] == ELFCLASS64)
        e->head = at;
    return true;
}

void elf_close(elf_file *e)
{
    if (e->bytes)
        munmap((void *)(uintptr_t)e->bytes, e->size);
    memset(e, 0, sizeof *e);
}

/* `count` pieces of `bytes` at an offset of the file, or NULL. */
static const void *piece(const elf_file *e, uint64_t offset, uint64_t count, uint64_t bytes)
{
    bool good = offset <= e->size && offset % 8 == 0 && count <= (e->size - offset) / bytes;
    return good ? e->bytes + offset : NULL;
}

/* A text in the file that ends in it. */
static const char *text_at(const elf_file *e, uint64_t offset)
{
    return offset < e->size && memchr(e->bytes + offset, 0, e->size - offset) ? e->bytes + offset : NULL;
}

const char *elf_loader(const elf_file *e)
{
    const Elf64_Phdr *p = e->head ? piece(e, e->head->e_phoff, e->head->e_phnum, sizeof *p) : NULL;
    for (int i = 0; p && i < e->head->e_phnum; i++)
        if (p[i].p_type == PT_INTERP)
            return text_at(e, p[i].p_offset);
    return NULL;
}

/* The next section of a type after `at` (NULL: the first), or NULL. */
static const Elf64_Shdr *section_next(const elf_file *e, const Elf64_Shdr *at, uint32_t type)
{
    const Elf64_Shdr *first = e->head ? piece(e, e->head->e_shoff, e->head->e_shnum, sizeof *first) : NULL;
    if (!first || e->head->e_shoff == 0)
        return NULL;
    for (at = at ? at + 1 : first; at < first + e->head->e_shnum; at++)
        if (at->sh_type == type)
            return at;
    return NULL;
}

/* The text at `offset` of the string table that section `s` is linked with. */
static const char *linked_text(const elf_file *e, const Elf64_Shdr *s, uint64_t offset)
{
    const Elf64_Shdr *all = piece(e, e->head->e_shoff, e->head->e_shnum, sizeof *all);
    const char *text = s->sh_link < e->head->e_shnum && offset < e->size ? text_at(e, all[s->sh_link].sh_offset + offset) : NULL;
    return text ? text : "";
}

bool elf_needs(const elf_file *e, const char *name)
{
    const Elf64_Shdr *s = section_next(e, NULL, SHT_DYNAMIC);
    const Elf64_Dyn *d = s ? piece(e, s->sh_offset, s->sh_size / sizeof *d, sizeof *d) : NULL;
    for (size_t i = 0; d && i < s->sh_size / sizeof *d; i++)
        if (d[i].d_tag == DT_NEEDED && strncmp(linked_text(e, s, d[i].d_un.d_val), name, strlen(name)) == 0)
            return true;
    return false;
}

static elf_symbol table_find(const elf_file *e, uint32_t type, const char *name)
{
    const Elf64_Shdr *s = section_next(e, NULL, type);
    const Elf64_Sym *symbols = s ? piece(e, s->sh_offset, s->sh_size / sizeof *symbols, sizeof *symbols) : NULL;
    for (size_t i = 1; symbols && i < s->sh_size / sizeof *symbols; i++) {
        if (strcmp(linked_text(e, s, symbols[i].st_name), name) != 0)
            continue;
        if (symbols[i].st_shndx == SHN_UNDEF)
            return SYMBOL_WANTED;
        return type == SHT_DYNSYM ? SYMBOL_EXPORTED : SYMBOL_LOCAL;
    }
    return SYMBOL_NONE;
}

elf_symbol elf_find(const elf_file *e, const char *name)
{
    elf_symbol found = table_find(e, SHT_DYNSYM, name);
    return found != SYMBOL_NONE ? found : table_find(e, SHT_SYMTAB, name) == SYMBOL_LOCAL ? SYMBOL_LOCAL : SYMBOL_NONE;
}

/* Relocations that write a function's address: the same two on both machines. */
static bool writes_address(uint32_t type)
{
    return type == R_X86_64_GLOB_DAT || type == R_X86_64_JUMP_SLOT || type == R_AARCH64_GLOB_DAT || type == R_AARCH64_JUMP_SLOT;
}

static uint64_t first_address(const elf_file *e)
{
    const Elf64_Phdr *p = piece(e, e->head->e_phoff, e->head->e_phnum, sizeof *p);
    for (int i = 0; p && i < e->head->e_phnum; i++)
        if (p[i].p_type == PT_LOAD)
            return p[i].p_vaddr - p[i].p_offset;
    return 0;
}

static uint64_t relocations_find(const elf_file *e, const Elf64_Shdr *s, const char *name)
{
    const Elf64_Shdr *all = piece(e, e->head->e_shoff, e->head->e_shnum, sizeof *all);
    const Elf64_Rela *r = piece(e, s->sh_offset, s->sh_size / sizeof *r, sizeof *r);
    if (!r || s->sh_link >= e->head->e_shnum || all[s->sh_link].sh_type != SHT_DYNSYM)
        return 0;
    const Elf64_Shdr *symtab = &all[s->sh_link];
    const Elf64_Sym *symbols = piece(e, symtab->sh_offset, symtab->sh_size / sizeof *symbols, sizeof *symbols);
    for (size_t i = 0; symbols && i < s->sh_size / sizeof *r; i++) {
        uint64_t symbol = ELF64_R_SYM(r[i].r_info);
        if (writes_address((uint32_t)ELF64_R_TYPE(r[i].r_info)) && symbol < symtab->sh_size / sizeof *symbols &&
            strcmp(linked_text(e, symtab, symbols[symbol].st_name), name) == 0)
            return r[i].r_offset - first_address(e);
    }
    return 0;
}

uint64_t elf_slot(const elf_file *e, const char *name)
{
    uint64_t slot = 0;
    for (const Elf64_Shdr *s = NULL; slot == 0 && (s = section_next(e, s, SHT_RELA)) != NULL;)
        slot = relocations_find(e, s, name);
    return slot;
}
