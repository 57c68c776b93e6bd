/* live.c: see live.h. May touch insight's stats and another process's /proc and memory, to read; nothing of the terminal.
 * Whatever the process says may be nonsense: sizes are checked before anything is read by them. */
#include "live.h"

#include "ground/text.h"
#include "proc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define TRIES 4          /* looks at a process whose threads allocate meanwhile */
#define PARTS_AT_ONCE 512
#define HEAPS_MOST ((size_t)1 << 20)
#define SLABS_MOST ((size_t)1 << 23)
#define POOLS_MOST ((size_t)1 << 20)

/* ---- reading ---- */

typedef struct part {
    const void *from; /* in the process */
    void *to;
    size_t bytes;
} part;

static live_result failure(void)
{
    if (errno == ESRCH)
        return LIVE_NO_PROCESS;
    return errno == EPERM || errno == ENOSYS ? LIVE_NO_PERMISSION : LIVE_CHANGED;
}

/* One system call for many parts, so that as little as possible changes in between. */
static live_result parts_read(pid_t pid, const part *parts, size_t count)
{
    struct iovec local[PARTS_AT_ONCE], remote[PARTS_AT_ONCE];
    for (size_t done = 0; done < count;) {
        size_t n = size_min(count - done, PARTS_AT_ONCE), bytes = 0;
        for (size_t i = 0; i < n; i++) {
            const part *p = &parts[done + i];
            local[i] = (struct iovec){p->to, p->bytes};
            remote[i] = (struct iovec){(void *)(uintptr_t)p->from, p->bytes};
            bytes += p->bytes; /* NOLINT: n is no more than there are */
        }
        errno = 0;
        if (process_vm_readv(pid, local, n, remote, n, 0) != (ssize_t)bytes)
            return failure();
        done += n;
    }
    return LIVE_FOUND;
}

live_result live_read(pid_t pid, const void *from, void *to, size_t bytes)
{
    part one = {from, to, bytes};
    return parts_read(pid, &one, 1);
}

/* ---- finding ---- */

/* The control page begins a private, writable mapping without a file, on a unit's boundary. */
static bool mapping_may_be(const mapping *m)
{
    return strcmp(m->rights, "rw-p") == 0 && m->inode == 0 && m->start % UNIT_SIZE == 0;
}

static live_result maps_search(FILE *maps, pid_t pid, control *found)
{
    mapping m;
    live_result result = LIVE_EMPTY;
    while (mapping_next(maps, &m)) {
        result = LIVE_NO_POOLS;
        if (!mapping_may_be(&m))
            continue;
        live_result read = live_read(pid, (const void *)m.start, found, sizeof *found); /* NOLINT: another process's address */
        if (read == LIVE_FOUND && memcmp(found->magic, CONTROL_MAGIC, sizeof CONTROL_MAGIC) == 0)
            return LIVE_FOUND;
        if (read == LIVE_NO_PERMISSION || read == LIVE_NO_PROCESS)
            return read;
    }
    return ferror(maps) ? LIVE_NO_PERMISSION : result;
}

live_result live_find(pid_t pid, control *found)
{
    FILE *maps = proc_open(pid, "maps");
    if (!maps)
        return errno == EACCES || errno == EPERM ? LIVE_NO_PERMISSION : LIVE_NO_PROCESS;
    live_result result = maps_search(maps, pid, found);
    fclose(maps);
    return result;
}

const char *live_explain(live_result result)
{
    static const char *const texts[] = {
        [LIVE_FOUND] = "runs on pools",
        [LIVE_NO_PROCESS] = "no such process",
        [LIVE_NO_PERMISSION] = "no permission to read its memory (another user's, or kernel.yama.ptrace_scope)",
        [LIVE_NO_POOLS] = "runs without poolmalloc",
        [LIVE_EMPTY] = "has no memory of its own (it has ended, or is the kernel's)",
        [LIVE_STARTING] = "has no pools yet, or could not make any",
        [LIVE_OTHER] = ("runs another version of poolmalloc than this tool, " PM_VERSION ", can read"),
        [LIVE_CHANGED] = "ended, or ran another program, while it was being read",
        [LIVE_NO_MEMORY] = "no memory for a copy of its bookkeeping",
        [LIVE_DAMAGED] = "has samples that make no sense: something has written over them",
    };
    return texts[result];
}

/* ---- what the view asks for ---- */

/* Pages of the process, as they were when first asked for. Page by page, because reading one that was never touched
 * would have the kernel map one there. */
#define CACHE_PAGE 4096
#define CACHE_LINES 1024

struct page_cache {
    uintptr_t page[CACHE_LINES]; /* 0: none */
    char bytes[CACHE_LINES][CACHE_PAGE];
};

static const char *page_of(const live *l, uintptr_t page)
{
    struct page_cache *c = l->cache;
    size_t line = page / CACHE_PAGE % CACHE_LINES;
    if (c->page[line] != page) {
        c->page[line] = 0;
        if (live_read(l->pid, (const void *)page, c->bytes[line], CACHE_PAGE) != LIVE_FOUND) /* NOLINT */
            return NULL;
        c->page[line] = page;
    }
    return c->bytes[line];
}

static bool peek_live(const view *v, const void *from, void *to, size_t bytes)
{
    const live *l = v->context;
    uintptr_t at = (uintptr_t)from, offset = at - (uintptr_t)l->region.blocks.base, end = v->slab_count * SLAB_SIZE;
    if (at % 8 != 0 || offset >= end || bytes > end - offset)
        return false;
    for (size_t n; bytes > 0; bytes -= n, at += n, to = (char *)to + n) {
        size_t in_page = at % CACHE_PAGE;
        const char *page = page_of(l, at - in_page);
        if (!page)
            return false;
        n = size_min(bytes, CACHE_PAGE - in_page);
        memcpy(to, page + in_page, n);
    }
    return true;
}

static size_t resident_live(const view *v, size_t from, size_t count)
{
    const live *l = v->context;
    const uint32_t *in_slab = l->pages.at;
    size_t pages = 0;
    for (size_t i = from; i < from + count; i++)
        pages += in_slab[i];
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* ---- pages in memory ---- */

#define PRESENT ((uint64_t)1 << 63)
#define ENTRIES 8192

static bool pagemap_read(live *l, size_t first, uint64_t *entries, size_t count)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    off_t at = (off_t)(((uintptr_t)l->region.blocks.base / page + first) * sizeof *entries);
    return pread(l->pagemap, entries, count * sizeof *entries, at) == (ssize_t)(count * sizeof *entries);
}

static bool pages_count(live *l, size_t slabs)
{
    static uint64_t entries[ENTRIES];
    size_t per_slab = SLAB_SIZE / (size_t)sysconf(_SC_PAGESIZE), all = slabs * per_slab;
    uint32_t *in_slab = l->pages.at;
    memset(in_slab, 0, slabs * sizeof *in_slab);
    for (size_t done = 0; done < all;) {
        size_t n = size_min(ENTRIES, all - done);
        if (!pagemap_read(l, done, entries, n))
            return false;
        for (size_t i = 0; i < n; i++)
            in_slab[(done + i) / per_slab] += (entries[i] & PRESENT) != 0;
        done += n;
    }
    return true;
}

static void pages_guess(live *l, size_t slabs)
{
    uint32_t *in_slab = l->pages.at;
    for (size_t i = 0; i < slabs; i++)
        in_slab[i] = l->view.slabs[i].state <= SLAB_CLEAN ? 0 : (uint32_t)(SLAB_SIZE / (size_t)sysconf(_SC_PAGESIZE));
}

/* ---- copies ---- */

static live_result heads_read(live *l)
{
    const control *c = &l->control;
    char name[sizeof l->next] = "";
    const char *next = NULL;
    const part parts[] = {
        {c->region, &l->region, sizeof l->region},
        {c->registry, &l->registry, sizeof l->registry},
        {c->depot, &l->depot, sizeof l->depot},
        {c->shared, &l->shared, sizeof l->shared},
        {c->pools, &l->pools, sizeof l->pools},
        {c->classes, l->classes, sizeof l->classes},
        {c->class_counts, l->counts, sizeof l->counts},
        {c->class_count, &l->class_count, sizeof l->class_count},
        {(const char *)c->config + offsetof(config, sizes.length), &l->class_fixed, sizeof l->class_fixed},
        {c->forwarded, &l->view.forwarded, sizeof l->view.forwarded},
        {c->next, &next, sizeof next},
        {(const char *)c->config + offsetof(config, stats), &l->wish, sizeof l->wish},
    };
    live_result result = parts_read(l->pid, parts, sizeof parts / sizeof *parts);
    if (result == LIVE_FOUND)
        for (size_t i = 0; i < sizeof name - 1; i++) /* byte by byte: it may end where its mapping does */
            if (live_read(l->pid, next + i, &name[i], 1) != LIVE_FOUND || !name[i])
                break;
    name_clean(name, l->next, sizeof l->next);
    l->pools.count = size_min(l->pools.count, POOLS_MOST);
    return result;
}

static bool heads_sane(const live *l)
{
    return l->class_count <= CLASS_MALLOC_MAX && l->registry.count <= HEAPS_MOST && l->pools.bins <= POOL_BINS &&
           l->depot.fresh <= SLABS_MOST && l->depot.fresh <= l->region.size / SLAB_SIZE && l->registry.stride >= sizeof(heap) &&
           (l->registry.count <= HEAPS_FIRST || (l->registry.count - HEAPS_FIRST) * l->registry.stride <= l->region.heaps.size);
}

/* As many slabs as it says have records: what is damaged does not make us ask for gigabytes. */
static bool slabs_there(const live *l)
{
    char last;
    return l->depot.fresh == 0 || live_read(l->pid, (const char *)(l->region.slabs + l->depot.fresh) - 1, &last, 1) == LIVE_FOUND;
}

/* What was in it may be lost. */
static bool buffer_hold(buffer *b, size_t bytes)
{
    if (b->at && b->bytes >= bytes)
        return true;
    free(b->at);
    b->bytes = round_up(bytes + bytes / 4 + 1, 4 * KIB);
    b->at = aligned_alloc(64, b->bytes);
    return b->at != NULL;
}

static bool buffers_hold(live *l, size_t heap_bytes)
{
    size_t slabs = l->depot.fresh, heaps = l->registry.count;
    return buffer_hold(&l->slabs, slabs * sizeof(slab)) && buffer_hold(&l->pages, slabs * sizeof(uint32_t)) &&
           buffer_hold(&l->heaps, heaps * heap_bytes) && buffer_hold(&l->slow, heaps * sizeof(uint64_t));
}

/* The heaps, then the slabs, then once more the heaps' counts of slow paths. */
static live_result body_read(live *l, part *parts, size_t stride, size_t bytes)
{
    size_t heaps = l->registry.count;
    for (size_t i = 0; i < heaps; i++)
        parts[i] = (part){registry_heap_of(&l->registry, i), (char *)l->heaps.at + i * stride, bytes};
    parts[heaps] = (part){l->region.slabs, l->slabs.at, l->depot.fresh * sizeof(slab)};
    live_result result = parts_read(l->pid, parts, heaps + 1);
    for (size_t i = 0; i < heaps; i++)
        parts[i] = (part){(char *)registry_heap_of(&l->registry, i) + offsetof(heap, slow), (uint64_t *)l->slow.at + i, sizeof(uint64_t)};
    return result == LIVE_FOUND ? parts_read(l->pid, parts, heaps) : result;
}

static void view_fill(live *l, size_t stride)
{
    view *v = &l->view;
    v->ready = true;
    v->region = &l->region;
    v->slabs = l->slabs.at;
    v->slab_count = l->depot.fresh;
    v->heaps = l->heaps.at;
    v->heap_stride = stride;
    v->heap_count = v->watched = l->registry.count;
    v->slow = l->slow.at;
    v->classes = l->classes;
    v->class_count = l->class_count;
    v->class_fixed = l->class_fixed;
    v->counts = l->counts;
    v->counted = l->wish.full;
    v->depot = &l->depot;
    v->shared = &l->shared;
    v->pools = &l->pools;
    v->pool_home = l->control.pool_home;
    v->nobody = l->control.nobody;
    v->next = l->next;
    v->pid = (uint32_t)l->pid;
    v->peek = peek_live;
    v->resident = resident_live;
    v->context = l;
}

static live_result copy_once(live *l)
{
    live_result result = heads_read(l);
    if (result != LIVE_FOUND)
        return result;
    if (!heads_sane(l) || !slabs_there(l))
        return LIVE_CHANGED;
    size_t bytes = offsetof(heap, pool_bins) + l->pools.bins * BIN_SIZE, stride = round_up(bytes, 64);
    part *parts = malloc((l->registry.count + 1) * sizeof *parts);
    if (!parts || !buffers_hold(l, stride)) {
        free(parts);
        return LIVE_NO_MEMORY;
    }
    memset(l->cache->page, 0, sizeof l->cache->page);
    result = body_read(l, parts, stride, bytes);
    free(parts);
    view_fill(l, stride);
    return result;
}

live_result live_take(live *l)
{
    live_result result = LIVE_FOUND;
    for (int tries = 0; tries < TRIES && result == LIVE_FOUND; tries++) {
        result = copy_once(l);
        if (result == LIVE_FOUND && view_busy(&l->view) == 0)
            break;
    }
    if (result == LIVE_FOUND && (l->pagemap < 0 || !pages_count(l, l->depot.fresh)))
        pages_guess(l, l->depot.fresh);
    return result;
}

/* ---- open, close ---- */

live_result live_check(pid_t pid, control *found)
{
    live_result result = live_find(pid, found);
    if (result != LIVE_FOUND)
        return result;
    if (found->layout != CONTROL_LAYOUT || strncmp(found->version, PM_VERSION, sizeof found->version) != 0)
        return LIVE_OTHER;
    return found->registry ? LIVE_FOUND : LIVE_STARTING;
}

live_result live_open(live *l, pid_t pid)
{
    char path[40];
    memset(l, 0, sizeof *l);
    live_result result = live_check(pid, &l->control);
    if (result != LIVE_FOUND)
        return result;
    l->pid = pid;
    l->cache = malloc(sizeof *l->cache);
    if (!l->cache)
        return LIVE_NO_MEMORY;
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)pid);
    l->pagemap = open(path, O_RDONLY | O_CLOEXEC);
    return LIVE_FOUND;
}

void live_close(live *l)
{
    if (l->pagemap >= 0)
        close(l->pagemap);
    free(l->slabs.at);
    free(l->heaps.at);
    free(l->slow.at);
    free(l->pages.at);
    free(l->cache);
}

live_result live_stats(pid_t pid, pm_stats *s)
{
    static live l;
    live_result result = live_open(&l, pid);
    if (result != LIVE_FOUND)
        return result;
    result = live_take(&l);
    if (result == LIVE_FOUND)
        stats_gather_from(&l.view, s);
    live_close(&l);
    return result;
}
