/* processes.c: see processes.h. May touch /proc for the list of processes, and processes' pools through live.h alone. */
#include "processes.h"

#include "proc.h"
#include "tool.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

static process *process_find(processes *all, pid_t pid)
{
    for (process *p = all->at; p < all->at + all->count; p++)
        if (p->pid == pid)
            return p;
    all->at = grown(all->at, all->count, &all->room, sizeof *all->at);
    process *p = &all->at[all->count++];
    memset(p, 0, sizeof *p);
    p->pid = pid;
    command_read(pid, p->command, sizeof p->command);
    arguments_read(pid, p->arguments, sizeof p->arguments);
    return p;
}

static void process_note(process *p, const pm_stats *s, double seconds)
{
    bool known = p->committed > 0 && seconds > 0;
    p->used_rate = known ? ((double)s->used_bytes - (double)p->used) / seconds : 0;
    p->forwarded_rate = known ? ((double)s->forwarded_calls - (double)p->forwarded) / seconds : 0;
    p->used = s->used_bytes;
    p->resident = s->resident_bytes;
    p->committed = s->committed_bytes;
    p->forwarded = s->forwarded_calls;
    p->threads = s->heaps - s->idle_heaps - 1; /* heap 0 serves those that have none */
    p->seen = true;
}

static void process_look(processes *all, pid_t pid, double seconds)
{
    static pm_stats s;
    live_result result = live_stats(pid, &s);
    all->denied += result == LIVE_NO_PERMISSION;
    if (result == LIVE_FOUND)
        process_note(process_find(all, pid), &s, seconds);
}

static void processes_drop_unseen(processes *all)
{
    size_t kept = 0;
    for (size_t i = 0; i < all->count; i++)
        if (all->at[i].seen)
            all->at[kept++] = all->at[i];
    all->count = kept;
}

void processes_look(processes *all, double seconds)
{
    DIR *folder = opendir("/proc");
    pid_t pid;
    all->denied = 0;
    for (size_t i = 0; i < all->count; i++)
        all->at[i].seen = false;
    for (struct dirent *entry; folder && (entry = readdir(folder)) != NULL;)
        if (pid_parse(entry->d_name, &pid))
            process_look(all, pid, seconds);
    if (folder)
        closedir(folder);
    processes_drop_unseen(all);
}
