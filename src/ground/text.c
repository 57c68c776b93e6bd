/* text.c: See text.h. vsnprintf of numbers and strings touches no heap in glibc and musl. */
#include "ground/text.h"

#include "ground/os.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool pm_stderr_closed;

void text_open(text *t, int fd)
{
    t->fd = fd;
    t->failed = false;
    t->used = 0;
}

static void text_vadd(text *t, const char *format, va_list args)
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
    if (!os_write(t->fd, t->bytes, t->used))
        t->failed = true;
    t->used = 0;
}

static void report_line(const char *format, va_list args)
{
    text t;
    if (pm_stderr_closed)
        return;
    text_open(&t, 2);
    text_add(&t, "poolmalloc: ");
    text_vadd(&t, format, args);
    text_add(&t, "\n");
    text_flush(&t);
}

void report(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    report_line(format, args);
    va_end(args);
}

void report_abort(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    report_line(format, args);
    va_end(args);
    os_abort();
}

bool path_expand(const char *pattern, char *path, size_t bytes)
{
    size_t used = 0;
    for (; *pattern; pattern++) {
        bool pid = pattern[0] == '%' && pattern[1] == 'p';
        int n = pid ? snprintf(path + used, bytes - used, "%u", os_pid()) : snprintf(path + used, bytes - used, "%c", *pattern);
        if (n < 0 || used + (size_t)n >= bytes)
            return false;
        used += (size_t)n;
        pattern += pid;
    }
    path[used] = 0;
    return used > 0;
}
