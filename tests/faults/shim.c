/* shim.c: a library behind the interposer, in front of the C library: the n-th call of a function fails.
 * FAULT=NAME:N fails once, FAULT=NAME:N+ from then on; FAULT_COUNT=PATH: a byte is appended there for each call. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool fails(const char *name)
{
    static unsigned calls;
    const char *fault = getenv("FAULT"), *count = getenv("FAULT_COUNT");
    size_t length = strlen(name);
    if (!fault || strncmp(fault, name, length) != 0 || fault[length] != ':')
        return false;
    unsigned call = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    int fd = count ? open(count, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (fd >= 0) {
        if (write(fd, ".", 1) != 1)
            abort();
        close(fd);
    }
    char *end;
    unsigned long nth = strtoul(fault + length + 1, &end, 10);
    return nth > 0 && (*end == '+' ? call >= nth : call == nth);
}

static void *next(const char *name, const char *version) { return dlvsym(RTLD_NEXT, name, version); }

void *dlsym(void *handle, const char *name)
{
    static void *(*real)(void *, const char *);
    if (!real)
        *(void **)&real = next("dlsym", "GLIBC_2.34");
    return fails("dlsym") ? NULL : real(handle, name);
}

int pthread_key_create(pthread_key_t *key, void (*end)(void *))
{
    static int (*real)(pthread_key_t *, void (*)(void *));
    if (!real)
        *(void **)&real = next("pthread_key_create", "GLIBC_2.34");
    return fails("pthread_key_create") ? EAGAIN : real(key, end);
}

int pthread_setspecific(pthread_key_t key, const void *value)
{
    static int (*real)(pthread_key_t, const void *);
    if (!real)
        *(void **)&real = next("pthread_setspecific", "GLIBC_2.34");
    return fails("pthread_setspecific") ? ENOMEM : real(key, value);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        *(void **)&real = next("clock_gettime", "GLIBC_2.17");
    return fails("clock_gettime") ? (errno = EINVAL, -1) : real(clock, now);
}
