/* words.c: see words.h. May touch stdout and stderr. */
#include "words.h"

#include "tool.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
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

/* How many letters must be changed, put in, left out, or changed with their neighbour, to make one word of the other. */
static size_t distance(const char *a, const char *b)
{
    enum { MOST = 31 };
    size_t rows[3][MOST + 1], m = strlen(a), n = strlen(b);
    if (m > MOST || n > MOST)
        return MOST;
    for (size_t j = 0; j <= n; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= m; i++) {
        size_t *now = rows[i % 3], *before = rows[(i - 1) % 3], *earlier = rows[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= n; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            size_t least = before[j - 1] + (x != y);
            least = before[j] + 1 < least ? before[j] + 1 : least;
            least = now[j - 1] + 1 < least ? now[j - 1] + 1 : least;
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) && y == tolower((unsigned char)a[i - 2]) && earlier[j - 2] + 1 < least)
                least = earlier[j - 2] + 1;
            now[j] = least;
        }
    }
    return rows[m % 3][n];
}

const char *word_nearest(const char *word, const char *const *words, size_t count)
{
    const char *nearest = NULL;
    size_t best = strlen(word) / 3 + 2; /* one letter of three, and one more, may be wrong */
    for (size_t i = 0; i < count; i++) {
        size_t d = distance(word, words[i]);
        if (d < best && d < strlen(words[i])) {
            best = d;
            nearest = words[i];
        }
    }
    return nearest;
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
