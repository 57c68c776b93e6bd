/* report.c: see report.h. */
#include "insight/report.h"

#include "ground/config.h"
#include "ground/os.h"
#include "ground/text.h"

#include <errno.h>
#include <fcntl.h>

static int report_open(void)
{
    char path[300];
    if (!*pm_config.stats_file)
        return 2;
    int fd = -ENAMETOOLONG;
    if (path_expand(pm_config.stats_file, path, sizeof path))
        fd = os_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        report("POOLMALLOC_STATS_FILE: '%s' cannot be opened (error %d); nothing is written", pm_config.stats_file, -fd);
    return fd;
}

/* One report at a time, report_lock held; from a buffer of its own: the caller's stack may be a signal's. */
static os_lock report_lock;
static pm_stats report_stats RARE;
static view report_view;
static uint64_t report_slow[HEAPS_WATCHED] RARE;

static bool report_write(int fd, stats_format format)
{
    view_here(&report_view, report_slow);
    stats_gather_from(&report_view, &report_stats);
    return stats_write(&report_view, &report_stats, format, fd);
}

bool stats_report_to(int fd, stats_format format)
{
    os_lock_take(&report_lock);
    bool written = report_write(fd, format);
    os_lock_give(&report_lock);
    return written;
}

void stats_report(void)
{
    int fd = report_open();
    if (fd < 0 || (fd == 2 && pm_stderr_closed))
        return;
    if (os_lock_try(&report_lock)) { /* held: the signal has come while this thread writes one, or another does */
        report_write(fd, pm_config.stats_format);
        os_lock_give(&report_lock);
    }
    if (fd > 2)
        os_close(fd);
}
