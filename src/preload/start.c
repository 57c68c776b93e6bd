/* start.c: See start.h. Nothing here may allocate but dlsym, whose wishes the boot arena serves. */
#include "preload/start.h"

#include "pools/bringup.h"
#include "pools/ending.h"
#include "ground/config.h"
#include "pools/guard.h"
#include "pools/hardened.h"
#include "preload/large.h"
#include "preload/next.h"
#include "ground/os.h"
#include "insight/report.h"
#include "insight/profile.h"
#include "insight/who.h"
#include "ground/text.h"

#include <errno.h>
#include <fcntl.h>
#include <poolmalloc.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

enum { STARTING = 1, STARTED };

/* Ours, since the compiler's start-up files are left out: theirs is written at load time, on a page that nothing else would
 * write. pthread_atfork passes it on. */
extern void *const __dso_handle __attribute__((visibility("hidden")));
void *const __dso_handle = (void *)&__dso_handle;

static int state;
static heap **starter; /* whose my_heap, while STARTING: tells the threads apart without a system call */
static os_lock start_lock;
static bool loaded; /* our constructor has run: those of the libraries that we need have, too */

/* Sanitizers and memcheck replace malloc themselves and must see each block: then we only forward. This is what each
 * sanitizer's runtime that has a malloc offers. */
extern size_t __sanitizer_get_allocated_size(const volatile void *) __attribute__((weak));

static bool sanitizer_linked(void) { return __sanitizer_get_allocated_size != NULL; }

/* valgrind's own libraries are preloaded beside us; those of tools that leave malloc alone do not matter. */
static bool names_tool(const char *preload)
{
    static const char *const tools[] = {"memcheck", "massif", "dhat", "helgrind", "drd"};
    for (const char *at = preload; *at; at++)
        for (size_t i = 0; i < sizeof tools / sizeof *tools && begins(at, "vgpreload_"); i++)
            if (begins(at + sizeof "vgpreload_" - 1, tools[i]))
                return true;
    return false;
}

static bool tool_watches(char *const *environment)
{
    bool watches = sanitizer_linked();
    for (; environment && *environment; environment++) {
        if (begins(*environment, "LD_PRELOAD="))
            watches |= names_tool(*environment);
        pm_next_tuned |= begins(*environment, "MALLOC_") || begins(*environment, "GLIBC_TUNABLES=");
    }
    return watches;
}

/* The environment before the C library has one: as the kernel left it. */
static char **environment_read(void)
{
    static char bytes[16384] RARE, *list[512] RARE;
    size_t used = 0, n = 0;
    int fd = os_open("/proc/self/environ", O_RDONLY, 0);
    if (fd < 0)
        return NULL;
    for (long got; used < sizeof bytes - 1 && (got = os_read(fd, bytes + used, sizeof bytes - 1 - used)) > 0;)
        used += (size_t)got;
    os_close(fd);
    for (char *at = bytes; at < bytes + used && n < sizeof list / sizeof *list - 1; at += strlen(at) + 1)
        list[n++] = at;
    return list;
}

static bool program_wanted(void)
{
    char path[512];
    if (!*pm_config.programs)
        return true;
    long n = os_readlink("/proc/self/exe", path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    return config_names_program(pm_config.programs, path) || config_names_program(pm_config.programs, os_program());
}

static void on_signal(int number)
{
    (void)number;
    stats_report();
}

static bool signal_ours(int number, struct sigaction *now)
{
    return sigaction(number, NULL, now) == 0 && !(now->sa_flags & SA_SIGINFO) && now->sa_handler == on_signal;
}

/* Only where the program has none: a handler of its own that is set later wins. */
static void signal_install(int number)
{
    struct sigaction old, new;
    memset(&new, 0, sizeof new);
    new.sa_handler = on_signal;
    new.sa_flags = SA_RESTART;
    if (sigaction(number, NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
        sigaction(number, &new, NULL);
    else {
        report("POOLMALLOC_STATS: the signal is ignored or handled already; it brings no report");
        pm_config.stats.signal = 0;
    }
}

static void signal_end(int number)
{
    struct sigaction now;
    if (number && !signal_ours(number, &now))
        report("POOLMALLOC_STATS: the program has set a handler of its own for the signal, which brought no report from then on");
}

static void settings_read(char **environment)
{
    if (!os_file_id(2, &(os_id){0}))
        pm_stderr = -1;
    config_load(&pm_config, os_privileged() ? NULL : environment, NULL);
    if (!program_wanted()) {
        pm_config.disable = true;
        pm_config.verbose = pm_config.stats.exit = false;
    }
    if (*pm_config.stats_file || *pm_config.profile)
        path_start();
}

static void start(void)
{
    char **environment = environ ? environ : environment_read();
    settings_read(environment);
    bool by_tool = tool_watches(environment);
    if (*pm_config.profile && !pm_config.disable && !by_tool)
        profile_init();
    who_init();
    guard_init();
    if (PM_HARDENED)
        hardened_init();
    bool pools = !pm_config.disable && !by_tool && pools_init();
    if (!next_find(!by_tool)) /* tools have put their malloc there, and tell of odd sizes */
        report_abort("no other malloc in this process to forward to");
    if (pm_config.stats.exit || pm_config.stats.signal)
        report_start();
    large_init();
    if (pools && pm_config.stats.signal)
        signal_install(pm_config.stats.signal);
    if (pools && pm_config.who)
        pm_who_start(pm_config.who);
    if (pm_config.verbose)
        report(PM_VERSION ", process %u: pools %s, %u block sizes to %u bytes, next allocator %s", os_pid(),
               pools ? "on" : "off", pm_class_count, pools ? pm_classes[pm_class_count - 1].size : 0, pm_next_name);
}

static COLD bool start_now(void)
{
    int saved = errno;
    if (sanitizer_linked() && !loaded) /* its runtime is not up yet, and the string functions are its own */
        return false;
    if (LOAD(&state) == STARTING && LOAD(&starter) == &my_heap)
        return false;
    os_lock_take(&start_lock);
    if (state != STARTED) {
        STORE(&starter, &my_heap);
        STORE(&state, STARTING);
        start();
        __atomic_store_n(&state, STARTED, __ATOMIC_RELEASE);
    }
    os_lock_give(&start_lock);
    errno = saved;
    return true;
}

bool start_done(void) { return LIKELY(__atomic_load_n(&state, __ATOMIC_ACQUIRE) == STARTED) || start_now(); }

__attribute__((constructor)) static void at_load(void)
{
    loaded = true;
    start_done();
}

__attribute__((destructor)) static void at_exit(void)
{
    if (state != STARTED)
        return;
    if (pm_config.stats.exit) /* before pages are touched that the program did not touch, or somebody aborts */
        stats_report();
    if (!pm_pools_ready)
        return;
    if (PM_HARDENED)
        hardened_check(CALL_EXIT);
    else
        ending_check();
    signal_end(pm_config.stats.signal);
}
