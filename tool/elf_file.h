/* elf_file.h: a program's or library's file, read by its section headers. Whatever it says may be nonsense: all of it is checked. */
#pragma once

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct elf_file {
    const char *bytes; /* mapped */
    size_t size;
    const Elf64_Ehdr *head; /* NULL: no ELF file of 64 bits */
} elf_file;

/* False: it cannot be read. */
bool elf_open(elf_file *e, const char *path);
void elf_close(elf_file *e);
/* The loader that it names, or NULL: a static program. */
const char *elf_loader(const elf_file *e);
/* Whether a library whose name begins so is among those that it needs. */
bool elf_needs(const elf_file *e, const char *name);
typedef enum { SYMBOL_NONE, SYMBOL_WANTED, SYMBOL_LOCAL, SYMBOL_EXPORTED } elf_symbol;
/* Whether it calls a function by this name, has one of its own, or offers that to others too. */
elf_symbol elf_find(const elf_file *e, const char *name);
/* Where, from its beginning in memory, the address of the function stands that its calls of `name` go to; 0: nowhere. */
uint64_t elf_slot(const elf_file *e, const char *name);
