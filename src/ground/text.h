/* text.h: Text to a file descriptor through a buffer on the caller's stack: allocates nothing. */
#pragma once

#include "ground/os.h"

#define PATH_BYTES 4096 /* of the longest path that the kernel takes */

/* It begins as {.fd = where it is to go}. */
typedef struct text {
    int fd;
    bool failed;
    size_t used;
    char bytes[500];
} text;

void text_add(text *t, const char *format, ...) PRINTF_LIKE(2, 3);
void text_flush(text *t);

/* A name of whatever bytes, fit to be shown; cut where it does not fit. Once, where the name comes from. */
void name_clean(const char *from, char *to, size_t bytes);

INLINE bool begins(const char *line, const char *with)
{
    for (; *with && *line == *with; with++)
        line++;
    return !*with;
}

/* How many letters to change, add or leave out until the first `length` of `word` are `other`, in capitals or not; many, where the
 * word is no name of ours. */
size_t word_distance(const char *word, size_t length, const char *other);

/* From now on relative paths mean today's folder, whatever the program changes to. */
void path_start(void);
/* `pattern` with each %p replaced by the process id; false when it does not fit. */
bool path_expand(const char *pattern, char *path, size_t bytes);

/* The program's stderr, or -1: closed at start, and whatever descriptor 2 is later, nothing goes there. */
extern int pm_stderr;

/* One line on stderr, "poolmalloc: …", in one write. */
void report(const char *format, ...) PRINTF_LIKE(1, 2) __attribute__((cold));
/* The same, then abort(): a user's misuse, or a broken invariant. */
#define report_abort(...) (report(__VA_ARGS__), os_abort())
