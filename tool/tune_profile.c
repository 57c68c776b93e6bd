/* tune_profile.c: profiles that the library wrote, read and added up. May touch insight's format of them and those files. */
#include "insight/profile.h"
#include "tool.h"
#include "tune.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* More than any machine holds: beyond it sums could overflow. */
#define BLOCKS_MOST ((uint64_t)1 << 32)

static const char *profile_fault(const profile_file *f, size_t bytes)
{
    const profile_head *h = &f->head;
    if (bytes < sizeof *h || memcmp(h->magic, PROFILE_MAGIC, sizeof h->magic) != 0)
        return "is no profile (POOLMALLOC_PROFILE writes them)";
    if (h->version != PROFILE_VERSION || h->rows != PROFILE_ROWS || h->quantum != QUANTUM)
        return "is a profile of another version";
    if (bytes != sizeof *f)
        return "is a damaged profile: it has not the length of one";
    uint64_t blocks = 0;
    for (size_t i = 0; i < PROFILE_SIZES && blocks < BLOCKS_MOST; i++)
        blocks += size_min(size_max(profile_at_peak(f, i), f->row[i].most), BLOCKS_MOST);
    return blocks < BLOCKS_MOST ? NULL : "is a damaged profile: it counts more blocks than there can be";
}

static const char *profile_load(const char *path, profile_file *f)
{
    FILE *from = fopen(path, "re");
    if (!from)
        return strerror(errno);
    size_t bytes = fread(f, 1, sizeof *f, from);
    bool failed = ferror(from), more = bytes == sizeof *f && getc(from) != EOF;
    int error = errno;
    fclose(from);
    return failed ? strerror(error) : profile_fault(f, bytes + more);
}

static void demand_of(const profile_file *f, demand *d, process_profile *p)
{
    for (size_t i = 0; i < PROFILE_SIZES; i++) {
        d->calls[i + 1] = f->row[i].calls;
        d->live[i + 1] = profile_at_peak(f, i);
        d->most[i + 1] = f->row[i].most;
        p->calls += f->row[i].calls;
    }
    d->processes = 1;
    d->large_calls = f->row[PROFILE_LARGE].calls;
    d->peak_bytes = f->head.peak_bytes;
    p->calls += d->large_calls;
    p->pid = f->head.pid;
    memcpy(p->program, f->head.program, sizeof p->program);
    p->program[sizeof p->program - 1] = 0;
}

bool profiles_add(profiles *all, const char *path)
{
    profile_file *f = need(malloc(sizeof *f));
    const char *fault = profile_load(path, f);
    if (fault) {
        fprintf(stderr, "poolmalloc: tune: '%s': %s\n", path, fault);
    } else {
        size_t room = all->room;
        all->each = grown(all->each, all->n, &room, sizeof *all->each);
        all->process = grown(all->process, all->n, &all->room, sizeof *all->process);
        memset(&all->each[all->n], 0, sizeof *all->each);
        memset(&all->process[all->n], 0, sizeof *all->process);
        demand_of(f, &all->each[all->n], &all->process[all->n]);
        demand_add(&all->sum, &all->each[all->n++]);
    }
    free(f);
    return !fault;
}

void profiles_free(profiles *all)
{
    free(all->each);
    free(all->process);
    *all = (profiles){.n = 0};
}
