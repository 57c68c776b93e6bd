/* Functions of the C library that allocate for their caller: their blocks are the allocator's like any other. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <locale.h>
#include <malloc.h>
#include <regex.h>
#include <stdint.h>
#include <wchar.h>

#include "check.h"

static void release(void *block, size_t at_least)
{
    CHECK(block != NULL && malloc_usable_size(block) >= at_least);
    CHECK((block = realloc(block, at_least * 2 + 10)) != NULL);
    free(block);
}

static void strings(void)
{
    char text[3000];
    for (size_t length = 0; length < sizeof text - 1; length++) {
        memset(text, 'a', length);
        text[length] = '\0';
        release(strdup(text), length + 1);
        release(strndup(text, length / 2), length / 2 + 1);
        char *printed = NULL;
        CHECK(asprintf(&printed, "%s!", text) == (int)length + 1);
        release(printed, length + 2);
    }
    release(wcsdup(L"wide"), 5 * sizeof(wchar_t));
}

static void arrays(void)
{
    int *numbers = NULL;
    for (size_t count = 1; count < 30000; count += count / 2 + 1) {
        CHECK((numbers = reallocarray(numbers, count, sizeof *numbers)) != NULL);
        numbers[count - 1] = (int)count;
    }
    errno = 0;
    CHECK(reallocarray(numbers, opaque(SIZE_MAX / 2), 4) == NULL && errno == ENOMEM);
    free(numbers);
}

static void streams(void)
{
    char *text = NULL, *line = NULL;
    size_t length = 0, room = 0, lines = 0;
    FILE *out = open_memstream(&text, &length);
    CHECK(out != NULL);
    for (int i = 0; i < 5000; i++)
        fprintf(out, "%*d\n", i % 400 + 1, i);
    CHECK(fclose(out) == 0);
    FILE *in = fmemopen(text, length, "r");
    CHECK(in != NULL);
    while (getline(&line, &room, in) > 0)
        lines++;
    CHECK(lines == 5000);
    fclose(in);
    release(line, 1);
    release(text, length);
}

static void paths(void)
{
    struct dirent **entries;
    glob_t found;
    release(realpath("/", NULL), 2);
    release(getcwd(NULL, 0), 2);
    int count = scandir("/proc/self", &entries, NULL, alphasort);
    CHECK(count > 10);
    while (count > 0)
        free(entries[--count]);
    free(entries);
    CHECK(glob("/proc/self/*", 0, NULL, &found) == 0 && found.gl_pathc > 10);
    globfree(&found);
}

static void others(void)
{
    regex_t pattern;
    CHECK(regcomp(&pattern, "^(a|b)*[0-9]{3,}x?$", REG_EXTENDED) == 0);
    CHECK(regexec(&pattern, "abab1234x", 0, NULL, 0) == 0);
    regfree(&pattern);
    CHECK(setlocale(LC_ALL, "C.UTF-8") != NULL && setlocale(LC_ALL, "C") != NULL);
    for (int i = 0; i < 100; i++) {
        char name[20];
        snprintf(name, sizeof name, "BLACKBOX_%d", i);
        CHECK(setenv(name, "a value of some length", 1) == 0);
    }
    CHECK(unsetenv("BLACKBOX_5") == 0 && getenv("BLACKBOX_6") != NULL);
}

int main(void)
{
    strings();
    arrays();
    streams();
    paths();
    others();
    return 0;
}
