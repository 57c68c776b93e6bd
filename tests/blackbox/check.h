/* What every black-box test shares: checks that end the process with one clear line.
 * Nothing here may allocate: a failing allocator must still be able to report. */
#pragma once

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ctest's SKIP_RETURN_CODE: the machine cannot run this test (never: the allocator failed it). */
enum { EXIT_SKIPPED = 77 };

/* For alarm(): a deadlock becomes a failure, not a hang. More than a machine ten times slower needs. */
enum { HANG_SECONDS = 1000 };

/* _exit, not exit: a failure may be found on any thread, inside a fork's child, or with a broken heap. */
static inline void __attribute__((format(printf, 3, 4), noreturn, unused))
check_failed(const char *file, int line, const char *format, ...)
{
    char text[512];
    int used = snprintf(text, sizeof text, "FAILED %s:%d: ", strrchr(file, '/') ? strrchr(file, '/') + 1 : file, line);
    va_list arguments;
    va_start(arguments, format);
    used += vsnprintf(text + used, sizeof text - (size_t)used - 1, format, arguments);
    va_end(arguments);
    if (used > (int)sizeof text - 2)
        used = (int)sizeof text - 2;
    text[used] = '\n';
    if (write(STDERR_FILENO, text, (size_t)used + 1) < 0)
        _exit(3);
    _exit(1);
}

#define CHECK(condition) \
    do { \
        if (!(condition)) \
            check_failed(__FILE__, __LINE__, "%s", #condition); \
    } while (0)

/* For checks whose values tell more than their text. */
#define CHECKF(condition, ...) \
    do { \
        if (!(condition)) \
            check_failed(__FILE__, __LINE__, __VA_ARGS__); \
    } while (0)

/* Hides a value from the optimiser, which may otherwise drop a malloc/free pair or warn about the size asked. */
static inline size_t opaque(size_t value)
{
    __asm__ volatile("" : "+r"(value));
    return value;
}

static inline void *opaque_pointer(void *value)
{
    __asm__ volatile("" : "+r"(value) : : "memory");
    return value;
}

/* The n-th argument as a number, or its default. */
static inline long argument(int argc, char **argv, int n, long otherwise)
{
    return argc > n ? strtol(argv[n], NULL, 0) : otherwise;
}
