/* settings.c: any bytes as an environment: its variables end with zero bytes, those that begin with a number of a setting have its
 * name. Whatever comes, a bad value leaves the default, and what is accepted is within its bounds and can be printed. */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VARIABLES = 8, BYTES = 16384 };

static void complain(const char *line)
{
    for (const char *c = line; *c || c == line; c++)
        if ((unsigned char)*c < ' ')
            abort();
}

static const char *name_of(uint8_t number)
{
    static const char *const names[] = {
#define OPTION(name, field, kind, fallback, help) "POOLMALLOC_" #name "=",
#include "ground/options.def"
#undef OPTION
    };
    return number < sizeof names / sizeof *names ? names[number] : "";
}

/* The environment's strings one behind the other in `room`. */
static size_t environment_make(const uint8_t *data, size_t size, char *room, char **environment)
{
    size_t count = 0, used = 0;
    for (size_t at = 0; at < size && count < VARIABLES; count++) {
        const char *name = name_of(data[at]);
        const uint8_t *end = memchr(data + at + 1, 0, size - at - 1);
        size_t next = end ? (size_t)(end - data) : size, skip = name[0] ? 1 : 0, length = strlen(name);
        if (used + length + (next - at) + 1 > BYTES)
            break;
        environment[count] = room + used;
        memcpy(room + used, name, length);
        memcpy(room + used + length, data + at + skip, next - at - skip);
        used += length + next - at - skip;
        room[used++] = 0;
        at = next + (end ? 1 : 0);
    }
    environment[count] = NULL;
    return count;
}

static void check(const config *c)
{
    for (uint32_t i = 1; i < c->sizes.length; i++)
        if (c->sizes.at[i].size <= c->sizes.at[i - 1].size || c->sizes.at[i].size > BLOCK_MAX || c->sizes.at[i].size % QUANTUM)
            abort();
    if (!memchr(c->stats_file, 0, sizeof c->stats_file) || !memchr(c->profile, 0, sizeof c->profile) ||
        !memchr(c->programs, 0, sizeof c->programs))
        abort();
}

/* As the tool prints them. */
static void print(const config *c, char *to)
{
    FILE *kept = stdout;
    if (!(stdout = fmemopen(to, BYTES, "w")))
        abort();
    config_print(c);
    if (fclose(stdout) != 0)
        abort();
    stdout = kept;
}

/* What is printed, and read again, prints the same. But for names that hold a line's end. */
static void print_and_load(const config *c)
{
    static char printed[BYTES], parts[BYTES];
    char *lines[64];
    size_t n = 0;
    if (strchr(c->stats_file, '\n') || strchr(c->profile, '\n') || strchr(c->programs, '\n'))
        return;
    print(c, printed);
    strcpy(parts, printed);
    for (char *line = strtok(parts, "\n"); line; line = strtok(NULL, "\n"))
        lines[n++] = line;
    lines[n] = NULL;
    config again;
    if (config_load(&again, lines, complain))
        abort();
    print(&again, parts);
    if (strcmp(parts, printed) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char room[BYTES], *environment[VARIABLES + 1];
    if (size == 0)
        return 0;
    size_t count = environment_make(data + 1, size - 1, room, environment);
    config after;
    config_load(&after, NULL, complain);
    static char before_text[BYTES], after_text[BYTES];
    print(&after, before_text);
    unsigned bad = config_load(&after, environment, complain);
    print(&after, after_text);
    if (count == 1 && bad && strcmp(before_text, after_text) != 0)
        abort();
    check(&after);
    config_names_program(after.programs, "/usr/bin/program");
    print_and_load(&after);
    return 0;
}
