/* proc.c: see proc.h. May touch /proc, to read. */
#include "proc.h"

#include "ground/text.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

FILE *proc_open(pid_t pid, const char *file)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    return fopen(path, "re");
}

size_t proc_read(pid_t pid, const char *file, char *to, size_t bytes)
{
    FILE *from = proc_open(pid, file);
    size_t n = from ? fread(to, 1, bytes - 1, from) : 0;
    if (from)
        fclose(from);
    to[n] = 0;
    return n;
}

void program_read(pid_t pid, char to[PATH_MAX])
{
    char link[40];
    snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
    ssize_t n = readlink(link, to, PATH_MAX - 1);
    to[n > 0 ? n : 0] = 0;
}

void command_read(pid_t pid, char *command, size_t bytes)
{
    char comm[64];
    proc_read(pid, "comm", comm, sizeof comm);
    comm[strcspn(comm, "\n")] = 0;
    name_clean(*comm ? comm : "?", command, bytes);
}

void arguments_read(pid_t pid, char *to, size_t bytes)
{
    size_t n = proc_read(pid, "cmdline", to, bytes);
    while (n > 0 && to[n - 1] == 0)
        n--;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)to[i] < 32 || to[i] == 127)
            to[i] = ' ';
}

bool mapping_next(FILE *maps, mapping *m)
{
    char line[sizeof m->path + 128];
    int fields = 0;
    while (fields < 5 && fgets(line, sizeof line, maps)) {
        *m->path = 0;
        fields = sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s %" SCNx64 " %*s %" SCNu64 " %4111[^\n]", &m->start, &m->end, m->rights,
                        &m->offset, &m->inode, m->path);
    }
    return fields >= 5;
}
