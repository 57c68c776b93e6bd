/* report.c: see report.h. */
#include "insight/report.h"

#include "ground/config.h"
#include "ground/os.h"
#include "ground/text.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

/* ---- one report at a time ---- */

static os_claim writer;            /* guards all of these: the caller's stack may be a signal's */
static pm_stats writer_stats RARE;
static view writer_view RARE;
static uint64_t writer_slow[HEAPS_WATCHED] RARE;
static char writer_path[PATH_BYTES] RARE;

static bool writer_write(int fd, stats_format format)
{
    view_here(&writer_view, writer_slow);
    stats_gather_sums(&writer_view, &writer_stats);
    return stats_write(&writer_view, &writer_stats, format, fd);
}

bool stats_report_to(int fd, stats_format format)
{
    os_claim_take(&writer, true);
    bool written = writer_write(fd, format);
    os_claim_give(&writer);
    return written;
}

/* ---- where reports go ---- */

/* A standard stream may be closed before the report: all of coreutils do so. Its duplicate lies where programs do not look,
 * is not inherited by exec, nor by the child of a fork (which may outlive its parent, whose reader waits for the end). */
typedef struct stream {
    int number, duplicate; /* -1: none */
    os_id id;
} stream;

static stream errors = {2, -1, {0, 0}}, target = {2, -1, {0, 0}};

static bool stream_is(const stream *s, int fd)
{
    os_id now;
    return os_file_id(fd, &now) && now.device == s->id.device && now.file == s->id.file;
}

/* A program that closed our duplicate, too, may have opened whatever it likes in its place. */
static int stream_find(const stream *s)
{
    if (s->duplicate < 0)
        return s->number;
    return stream_is(s, s->duplicate) ? s->duplicate : stream_is(s, s->number) ? s->number : -1;
}

static void stream_drop(stream *s)
{
    if (s->duplicate >= 0 && stream_is(s, s->duplicate))
        os_close(s->duplicate);
    s->duplicate = -1;
}

static void duplicates_drop(void)
{
    stream_drop(&errors);
    stream_drop(&target);
    pm_stderr = errors.number;
}

/* What is closed now is not the stream later, whatever has its number. */
static void stream_start(stream *s)
{
    if (!os_file_id(s->number, &s->id))
        s->number = -1;
    else if (pm_config.stats.exit)
        s->duplicate = os_keep(s->number);
}

/* The descriptor that a path of /dev stands for, or -1. */
static int path_stream(const char *path)
{
    static const char *const folders[] = {"/dev/fd/", "/proc/self/fd/"};
    size_t number;
    if (!*path || (begins(path, "/dev/stderr") && !path[11]))
        return 2;
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(folders[i]);
        if (strncmp(path, folders[i], n) == 0 && size_parse(path + n, path + strlen(path), &number) && number < INT32_MAX)
            return (int)number;
    }
    return begins(path, "/dev/stdout") && !path[11] ? 1 : -1;
}

void report_start(void)
{
    target.number = path_stream(pm_config.stats_file);
    stream_start(&errors);
    stream_start(&target);
    if (errors.duplicate >= 0 || target.duplicate >= 0)
        pthread_atfork(NULL, NULL, duplicates_drop);
}

static int refuse(const char *why, int error)
{
    report("POOLMALLOC_STATS_FILE: '%s' %s (error %d)", pm_config.stats_file, why, error);
    return -1;
}

static int file_open(void)
{
    if (!path_expand(pm_config.stats_file, writer_path, sizeof writer_path))
        return refuse("is too long", ENAMETOOLONG);
    int fd = os_open(writer_path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK, 0644);
    return fd >= 0        ? fd
           : fd == -ENXIO ? refuse("has no reader", ENXIO)
           : fd == -ELOOP ? refuse("is a symbolic link, which is not followed", ELOOP)
                          : refuse("cannot be opened", -fd);
}

static void writer_report(void)
{
    bool to_file = path_stream(pm_config.stats_file) < 0;
    pm_stderr = stream_find(&errors);
    int fd = to_file ? file_open() : stream_find(&target);
    if (fd >= 0 && !writer_write(fd, pm_config.stats_format) && (to_file || target.number != errors.number))
        refuse("takes not all of the report", EIO);
    if (fd >= 0 && to_file)
        os_close(fd);
}

void stats_report(void)
{
    int saved = errno;
    if (os_claim_take(&writer, false)) {
        writer_report();
        os_claim_give(&writer);
    }
    errno = saved;
}
