/* words.c: see words.h. May touch stdout and stderr. */
#include "words.h"

#include "ground/text.h"
#include "tool.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static size_t unit_of(double *bytes, double most)
{
    size_t unit = 0;
    for (; fabs(*bytes) >= most && unit < 5; unit++)
        *bytes /= 1024;
    return unit;
}

const char *human(double bytes, char *to, size_t room)
{
    size_t unit = unit_of(&bytes, 9999.5);
    snprintf(to, room, unit ? fabs(bytes) < 99.95 ? "%.1f%c" : "%.0f%c" : "%.0f", bytes, "BKMGTP"[unit]);
    return to;
}

const char *human_long(double bytes, char *to, size_t room)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t unit = unit_of(&bytes, 1024);
    snprintf(to, room, unit && fabs(bytes) < 99.95 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return to;
}

const char *word_nearest(const char *word, const char *const *words, size_t count)
{
    const char *nearest = NULL;
    size_t best = strlen(word) / 3 + 2; /* one letter of three, and one more, may be wrong */
    for (size_t i = 0; i < count; i++) {
        size_t d = word_distance(word, strlen(word), words[i]);
        if (d < best && d < strlen(words[i])) {
            best = d;
            nearest = words[i];
        }
    }
    return nearest;
}

const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool number_parse(const char *from, double least, double most, double *to)
{
    char *end;
    *to = strtod(from, &end);
    return end != from && !*end && *to >= least && *to <= most;
}

bool picture_foreign(const char *path)
{
    static const char *const others[] = {".png", ".pdf", ".jpg", ".jpeg", ".gif", ".webp", ".eps", ".ps", ".html", ".csv", ".txt"};
    const char *end = strrchr(path, '.');
    for (size_t i = 0; end && i < sizeof others / sizeof *others; i++)
        if (strcasecmp(end, others[i]) == 0)
            return true;
    return false;
}

int stdout_close(int status)
{
    bool bad = ferror(stdout) != 0;
    if (fclose(stdout) == 0 && !bad)
        return status;
    fprintf(stderr, "poolmalloc: standard output: %s\n", errno ? strerror(errno) : "cannot be written");
    return status ? status : EXIT_NOT_SO;
}
