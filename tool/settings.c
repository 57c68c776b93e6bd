/* settings.c: a file of settings (`run --config`, `tune --output`). May touch tool.h, that file and the environment. */
#include "tool.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char prefix[] = "POOLMALLOC_";

/* Without comment, and without blanks at both ends. A value may hold # unless a blank comes before it. */
static char *line_strip(char *line)
{
    char *end = line;
    while (*end && !(*end == '#' && (end == line || isspace((unsigned char)end[-1]))))
        end++;
    *end = 0;
    while (end > line && isspace((unsigned char)end[-1]))
        *--end = 0;
    return line + strspn(line, " \t");
}

/* Whether the value is good is looked at later, for all settings alike. */
static bool line_set(char *line)
{
    char *text = line_strip(line), *equals = strchr(text, '=');
    if (!*text)
        return true;
    if (!equals || strncmp(text, prefix, sizeof prefix - 1) != 0)
        return false;
    *equals = 0;
    return setenv(text, equals + 1, 1) == 0;
}

bool settings_load(const char *path)
{
    char *line = NULL;
    size_t bytes = 0, number = 1;
    FILE *from = fopen(path, "re");
    if (!from) {
        fprintf(stderr, "poolmalloc: '%s': %s\n", path, strerror(errno));
        return false;
    }
    while (getline(&line, &bytes, from) >= 0 && line_set(line))
        number++;
    bool good = feof(from) && !ferror(from);
    if (!good)
        fprintf(stderr, "poolmalloc: '%s', line %zu: is not POOLMALLOC_NAME=VALUE\n", path, number);
    free(line);
    fclose(from);
    return good;
}
