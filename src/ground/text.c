/* text.c: See text.h. vsnprintf of numbers and strings touches no heap in glibc and musl. */
#include "ground/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int pm_stderr = 2;

/* Not inlined: a piece here, a text there, and no frame is large. */
static NOINLINE void text_vadd(text *t, const char *format, va_list args)
{
    char piece[400];
    int n = vsnprintf(piece, sizeof piece, format, args);
    size_t length = n < 0 ? 0 : size_min((size_t)n, sizeof piece - 1);
    if (t->used + length > sizeof t->bytes)
        text_flush(t);
    memcpy(t->bytes + t->used, piece, length);
    t->used += length;
}

void text_add(text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    text_vadd(t, format, args);
    va_end(args);
}

void text_flush(text *t)
{
    t->failed = t->failed || !os_write(t->fd, t->bytes, t->used);
    t->used = 0;
}

void report(const char *format, ...)
{
    text t = {.fd = pm_stderr};
    va_list args;
    if (pm_stderr < 0)
        return;
    va_start(args, format);
    text_add(&t, "poolmalloc: ");
    text_vadd(&t, format, args);
    text_add(&t, "\n");
    text_flush(&t);
    va_end(args);
}

/* Bytes of the well-formed UTF-8 sequence at the place, or 0. A name may be cut anywhere. */
static size_t utf8_length(const char *at)
{
    unsigned char c = (unsigned char)*at;
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if (((unsigned char)at[i] & 0xc0) != 0x80)
            return 0;
    unsigned char second = n > 2 ? (unsigned char)at[1] : 0x90;
    bool wrong = (c == 0xe0 && second < 0xa0) || (c == 0xed && second >= 0xa0) || (c == 0xf0 && second < 0x90) ||
                 (c == 0xf4 && second >= 0x90);
    return wrong ? 0 : n;
}

/* Moves *from behind its first character; returns the bytes of *shown: that character, or, where no terminal, JSON or
 * Prometheus parser could stand it (control characters, broken UTF-8), a question mark. */
static size_t char_clean(const char **from, const char **shown)
{
    const char *at = *from;
    size_t n = utf8_length(at);
    bool odd = n == 0 || (unsigned char)*at < 32 || *at == 127;
    *from += size_max(n, 1);
    *shown = odd ? "?" : at;
    return odd ? 1 : n;
}

void name_clean(const char *from, char *to, size_t bytes)
{
    const char *shown;
    for (size_t n; *from; to += n, bytes -= n) {
        n = char_clean(&from, &shown);
        if (n >= bytes)
            break;
        memcpy(to, shown, n);
    }
    *to = 0;
}

#define WORD_MOST 31

size_t word_distance(const char *word, size_t length, const char *other)
{
    uint8_t row[WORD_MOST + 1], count = (uint8_t)size_min(strlen(other), WORD_MOST);
    if (length > WORD_MOST)
        return SIZE_MAX;
    for (uint8_t i = 0; i <= count; i++)
        row[i] = i;
    for (size_t n = 0; n < length; n++) {
        uint8_t before = row[0]++;
        for (uint8_t i = 0; i < count; i++) {
            uint8_t change = (uint8_t)(before + ((word[n] | 0x20) != (other[i] | 0x20)));
            before = row[i + 1];
            row[i + 1] = (uint8_t)size_min(change, size_min(before, row[i]) + 1);
        }
    }
    return row[count];
}

static char path_folder[PATH_BYTES] RARE; /* with a slash at the end; empty: it has no name */

void path_start(void)
{
    if (os_folder(path_folder, sizeof path_folder - 1))
        memcpy(path_folder + strlen(path_folder), "/", sizeof "/");
    else
        *path_folder = 0;
}

bool path_expand(const char *pattern, char *path, size_t bytes)
{
    size_t used = (size_t)snprintf(path, bytes, "%s", *pattern == '/' ? "" : path_folder);
    for (; *pattern && used < bytes; pattern++) {
        bool pid = pattern[0] == '%' && pattern[1] == 'p';
        int n = pid ? snprintf(path + used, bytes - used, "%u", os_pid()) : snprintf(path + used, bytes - used, "%c", *pattern);
        used += n < 0 ? bytes : (size_t)n;
        pattern += pid;
    }
    return used > 0 && used < bytes;
}
