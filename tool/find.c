/* find.c: processes by number or name. May touch /proc, to read. */
#include "tool.h"

#include "live.h"
#include "proc.h"
#include "words.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool pid_parse(const char *from, pid_t *pid)
{
    char *end;
    errno = 0;
    long n = strtol(from, &end, 10);
    if (errno || end == from || *end || n <= 0 || n > INT_MAX)
        return false;
    *pid = (pid_t)n;
    return true;
}

/* As /proc/PID/comm, which is cut at 15 bytes, the program's file, or what it was called as says. */
static bool process_is(pid_t pid, const char *name)
{
    char comm[32], called[512], file[PATH_MAX];
    proc_read(pid, "comm", comm, sizeof comm);
    comm[strcspn(comm, "\n")] = 0;
    proc_read(pid, "cmdline", called, sizeof called);
    program_read(pid, file);
    return strcmp(comm, name) == 0 || strcmp(last_part(called), name) == 0 || strcmp(last_part(file), name) == 0;
}

static int pid_order(const void *a, const void *b) { return *(const pid_t *)a - *(const pid_t *)b; }

static size_t named_find(const char *name, pid_t *pids, size_t room)
{
    DIR *folder = opendir("/proc");
    size_t count = 0;
    pid_t pid;
    for (struct dirent *entry; folder && (entry = readdir(folder)) != NULL;)
        if (pid_parse(entry->d_name, &pid) && pid != getpid() && count < room && process_is(pid, name))
            pids[count++] = pid;
    if (folder)
        closedir(folder);
    qsort(pids, count, sizeof *pids, pid_order);
    return count;
}

/* Of the processes with a name, those on pools, if there are any: a shell that starts a server is called as it is. */
static size_t pools_keep(pid_t *pids, size_t count)
{
    control c;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (live_find(pids[i], &c) == LIVE_FOUND) {
            pid_t swapped = pids[kept];
            pids[kept++] = pids[i];
            pids[i] = swapped;
        }
    return kept ? kept : count;
}

size_t pids_find(const char *command, char **words, size_t count, pid_t *pids, size_t room)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (found < room && pid_parse(words[i], &pids[found])) {
            found++;
            continue;
        }
        size_t named = named_find(words[i], pids + found, room - found);
        if (named == 0) {
            fprintf(stderr, "poolmalloc: %s: '%s' is no process id, and no process has this name\n", command, words[i]);
            return 0;
        }
        found += pools_keep(pids + found, named);
    }
    return found;
}
