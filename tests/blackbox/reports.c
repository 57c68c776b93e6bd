/* malloc_trim, mallinfo, mallinfo2, malloc_info, malloc_stats and mallopt tell of the whole heap, whoever serves it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <stdint.h>

#include "check.h"
#include "process.h"

enum { BLOCKS = 400000, SIZE = 96, BYTES = BLOCKS * SIZE };

static void *blocks[BLOCKS];

static void take(void)
{
    for (int i = 0; i < BLOCKS; i++) {
        CHECK((blocks[i] = malloc(SIZE)) != NULL);
        memset(blocks[i], 1, SIZE);
    }
}

static void give_back(void)
{
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
}

/* Used bytes rise by what is taken, and fall by what is freed, to within a tenth. */
static void info2_follows(void)
{
    struct mallinfo2 before = mallinfo2();
    take();
    struct mallinfo2 full = mallinfo2();
    size_t rise = full.uordblks - before.uordblks;
    CHECKF(rise >= BYTES && rise < BYTES + BYTES / 2, "uordblks rose by %zu for %d bytes taken", rise, BYTES);
    CHECKF(full.arena + full.hblkhd >= full.uordblks, "more bytes in use (%zu) than obtained (%zu)", full.uordblks, full.arena + full.hblkhd);
    give_back();
    struct mallinfo2 after = mallinfo2();
    CHECKF(after.uordblks < before.uordblks + BYTES / 10, "uordblks stays %zu bytes up after free", after.uordblks - before.uordblks);
}

static void old_info_agrees(void)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    take();
    struct mallinfo old = mallinfo();
    struct mallinfo2 wide = mallinfo2();
    CHECK(wide.uordblks < INT_MAX);
    CHECKF(old.uordblks >= BYTES && (size_t)old.uordblks <= wide.uordblks + 65536,
           "mallinfo says %d bytes, mallinfo2 %zu", old.uordblks, wide.uordblks);
    give_back();
#pragma GCC diagnostic pop
}

static void trim_gives_back(void)
{
    malloc_trim(0);
    long before = rss_kib();
    take();
    long full = rss_kib();
    give_back();
    int answer = malloc_trim(0);
    long left = rss_kib() - before;
    CHECKF(answer == 0 || answer == 1, "malloc_trim answered %d", answer);
    CHECKF(full - before > BYTES / 1024 * 9 / 10, "the blocks took only %ld KiB", full - before);
    CHECKF(left < (full - before) / 10, "after malloc_trim %ld of %ld KiB remain", left, full - before);
    malloc_trim(SIZE_MAX / 2);
}

/* A document that begins and ends as parsers of it expect, and whose elements are closed. */
static void info_document(void)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    CHECK(out != NULL && malloc_info(0, out) == 0 && fclose(out) == 0);
    CHECKF(strncmp(text, "<malloc version=\"1\">", 20) == 0, "malloc_info begins with: %.40s", text);
    const char *end = strstr(text, "</malloc>");
    CHECKF(end != NULL && strspn(end + 9, "\n ") == strlen(end + 9), "malloc_info does not end with </malloc>");
    int open_elements = 0;
    for (const char *at = text; (at = strchr(at, '<')) != NULL; at++)
        open_elements += at[1] == '/' ? -1 : strchr(at, '>')[-1] == '/' ? 0 : 1;
    CHECKF(open_elements == 0, "malloc_info leaves %d elements open", open_elements);
    free(text);
    CHECKF(malloc_info(1, stdout) == EINVAL, "malloc_info takes an option");
}

/* malloc_stats writes to stderr, and only there. */
static void stats_on_stderr(void)
{
    int saved = dup(STDERR_FILENO);
    FILE *file = tmpfile();
    CHECK(saved >= 0 && file != NULL);
    fflush(stderr);
    CHECK(dup2(fileno(file), STDERR_FILENO) == STDERR_FILENO);
    malloc_stats();
    fflush(stderr);
    CHECK(dup2(saved, STDERR_FILENO) == STDERR_FILENO);
    close(saved);
    CHECK(lseek(fileno(file), 0, SEEK_END) > 50);
    fclose(file);
}

static void options_are_passed_on(void)
{
    CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
    CHECK(mallopt(M_TRIM_THRESHOLD, 1 << 20) == 1);
    CHECK(mallopt(M_ARENA_MAX, 1) == 1);
}

int main(void)
{
    memset(blocks, 0xff, sizeof blocks);
    info2_follows();
    old_info_agrees();
    trim_gives_back();
    info_document();
    stats_on_stderr();
    options_are_passed_on();
    return 0;
}
