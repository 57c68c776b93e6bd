/* What a test sees of its own process: memory, mappings, time. All of it without the allocator. */
#pragma once

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

/* A field of /proc/self/status in KiB ("VmRSS:", "VmLck:", …). */
static inline long status_kib(const char *field)
{
    char text[8192];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    CHECK(length > 0);
    text[length] = '\0';
    const char *at = strstr(text, field);
    CHECKF(at != NULL, "no %s in /proc/self/status", field);
    return strtol(at + strlen(field), NULL, 10);
}

static inline long rss_kib(void)
{
    return status_kib("VmRSS:");
}

/* How many mappings the process has: a kernel limits them to 65530. */
static inline long mapping_count(void)
{
    char text[65536];
    long lines = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    for (ssize_t length; (length = read(fd, text, sizeof text)) > 0;)
        for (ssize_t i = 0; i < length; i++)
            lines += text[i] == '\n';
    close(fd);
    return lines;
}

static inline double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline void sleep_ms(long ms)
{
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

/* Forks; the child does what `run` does, which ends it, with status 0. */
static inline void child_succeeds(void (*run)(void))
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        run();
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECKF(status == 0, "the child ended with status 0x%x", (unsigned)status);
}

/* Mappings that a block lies in. */
static inline int mappings_of(const char *block, size_t size)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    unsigned long from, to;
    int count = 0;
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps))
        count += sscanf(line, "%lx-%lx", &from, &to) == 2 && from < (uintptr_t)block + size && to > (uintptr_t)block;
    fclose(maps);
    return count;
}
