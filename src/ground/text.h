/* text.h: Text to a file descriptor through a buffer on the caller's stack: allocates nothing. */
#ifndef PM_TEXT_H
#define PM_TEXT_H

#include "ground/base.h"

typedef struct text {
    int fd;
    bool failed;
    size_t used;
    char bytes[1000];
} text;

void text_open(text *t, int fd);
void text_add(text *t, const char *format, ...) PRINTF_LIKE(2, 3);
void text_flush(text *t);

/* A name of whatever bytes, fit to be shown; cut where it does not fit. Once, where the name comes from. */
void name_clean(const char *from, char *to, size_t bytes);

/* `pattern` with each %p replaced by the process id; false when it does not fit. */
bool path_expand(const char *pattern, char *path, size_t bytes);

/* Descriptor 2 was closed at start. Whatever it is later, it is not the program's stderr: nothing goes there. */
extern bool pm_stderr_closed;

/* One line on stderr, "poolmalloc: …", in one write. */
void report(const char *format, ...) PRINTF_LIKE(1, 2);
/* The same, then abort(): a user's misuse, or a broken invariant. */
void report_abort(const char *format, ...) PRINTF_LIKE(1, 2) __attribute__((noreturn, cold));

#endif
