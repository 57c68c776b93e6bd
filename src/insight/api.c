/* api.c: The public functions on the pools behind malloc. */
#include "pools/alloc.h"
#include "pools/hardened.h"
#include "insight/report.h"
#include "pools/threads.h"

#include <errno.h>
#include <string.h>

static_assert((int)PM_FORMAT_JSON == (int)FORMAT_JSON && (int)PM_FORMAT_PROMETHEUS == (int)FORMAT_PROMETHEUS, "");
static_assert(PM_STATS_ROWS >= CLASS_MALLOC_MAX, "");

const char *pm_version(void) { return PM_VERSION; }

int pm_stats_get(pm_stats *stats)
{
    if (!stats || stats->struct_size < sizeof(size_t)) {
        errno = EINVAL;
        return -1;
    }
    size_t size = stats->struct_size;
    stats_copy(stats, size_min(size, sizeof *stats), true);
    stats->struct_size = size;
    return 0;
}

int pm_stats_print(int fd, pm_format format)
{
    if ((unsigned)format > PM_FORMAT_PROMETHEUS) {
        errno = EINVAL;
        return -1;
    }
    if (stats_report_to(fd, (stats_format)format))
        return 0;
    errno = EIO;
    return -1;
}

size_t pm_trim(void) { return pm_pools_ready ? pools_trim() : 0; }

void pm_check(void)
{
    if (pm_pools_ready) {
        pools_check();
        if (PM_HARDENED)
            hardened_check(CALL_CHECK);
    }
}

void pm_thread_idle(void) { thread_idle(); }
