/* tune_profile.c: profiles that the library wrote, read and added up. May touch insight's format of them and those files. */
#include "insight/profile.h"
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

/* Room for one more: there is for the next power of two. */
static bool profiles_grow(profiles *all)
{
    size_t room = all->n ? 2 * all->n : 1;
    if (all->n && !is_power_of_two(all->n))
        return true;
    demand *each = realloc(all->each, room * sizeof *each);
    all->each = each ? each : all->each;
    process_profile *process = realloc(all->process, room * sizeof *process);
    all->process = process ? process : all->process;
    return each && process;
}

bool profiles_add(profiles *all, const char *path)
{
    profile_file *f = malloc(sizeof *f);
    const char *fault = f && profiles_grow(all) ? profile_load(path, f) : "there is no memory for it";
    if (fault) {
        fprintf(stderr, "poolmalloc: tune: '%s': %s\n", path, fault);
    } else {
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
