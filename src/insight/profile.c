/* profile.c: See profile.h. */
#include "insight/profile.h"

#include "ground/config.h"
#include "ground/os.h"
#include "pools/region.h"
#include "pools/seams.h"
#include "ground/text.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* Guards all below. The file is this process's alone, so a lock that dies with it harms nobody. */
static os_lock lock;
static profile_file *file; /* NULL in the child of a fork before its first allocation */
static bool refused;       /* in such a child: it could not have one */
static __thread bool busy; /* a signal handler that comes in here records nothing */

/* ---- the size that each block was asked for with ---- */

/* Two bytes for every 16 of the region, in chunks mapped on first use. 0: not recorded; sizes above 65535 are stored as
 * that. A block's is at its first quantum. */
#define CHUNK_SHIFT 28
#define CHUNK_BYTES (((size_t)1 << CHUNK_SHIFT) / QUANTUM * sizeof(uint16_t))
#define CHUNKS ((size_t)1 << (40 - CHUNK_SHIFT)) /* the region's ceiling is 1 TiB */
static uint16_t *chunks[CHUNKS] RARE;

/* Where the size of block p is noted; NULL: nowhere, and it is not recorded. */
static uint16_t *shadow_of(const void *p)
{
    size_t offset = region_offset(p), chunk = offset >> CHUNK_SHIFT;
    if (chunk >= CHUNKS)
        return NULL;
    if (!chunks[chunk])
        chunks[chunk] = os_map(CHUNK_BYTES);
    return chunks[chunk] ? &chunks[chunk][offset % ((size_t)1 << CHUNK_SHIFT) / QUANTUM] : NULL;
}

/* ---- rows; lock held ---- */

static profile_row *row_of(size_t size)
{
    return &file->row[size > BLOCK_MAX ? PROFILE_LARGE : (size_max(size, 1) - 1) / QUANTUM];
}

/* Before a change: puts by what it was at the peak. */
static void row_hold(profile_row *r)
{
    if (r->moment != file->head.moment) {
        r->held = r->live;
        r->moment = file->head.moment;
    }
}

static void block_add(uint16_t *shadow, size_t size)
{
    *shadow = (uint16_t)size_max(1, size_min(size, UINT16_MAX));
    profile_row *r = row_of(*shadow);
    r->live++;
    r->most = size_max(r->most, r->live);
    file->head.live_bytes += *shadow;
    if (file->head.live_bytes > file->head.peak_bytes) {
        file->head.peak_bytes = file->head.live_bytes;
        file->head.moment++;
    }
}

static bool block_remove(uint16_t *shadow)
{
    if (*shadow == 0)
        return false;
    profile_row *r = row_of(*shadow);
    row_hold(r);
    r->live--;
    file->head.live_bytes -= *shadow;
    *shadow = 0;
    return true;
}

/* ---- the file ---- */

/* When process pid began, in ticks since the machine did; 0: there is none. The 22nd field of its stat, of which the
 * second, in parentheses, may hold anything. */
static uint64_t process_started(uint32_t pid)
{
    char path[40], line[600]; /* the name has at most 64 bytes, each field 20 */
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    int fd = os_open(path, O_RDONLY, 0);
    long n = fd < 0 ? 0 : os_read(fd, line, sizeof line - 1);
    if (fd >= 0)
        os_close(fd);
    const char *end = line + (n > 0 ? n : 0);
    line[end - line] = 0;
    const char *at = strrchr(line, ')');
    for (int field = 2; at && field < 22; field++)
        at = memchr(at + 1, ' ', (size_t)(end - at)); /* and the zero */
    const char *to = at ? memchr(at + 1, ' ', (size_t)(end - at)) : NULL;
    size_t ticks;
    return to && size_parse(at + 1, to, &ticks) ? ticks : 0;
}

typedef enum { FILE_EMPTY, FILE_MINE, FILE_LEFT, FILE_TAKEN, FILE_ALIEN } file_owner;

/* Whose is it? Mine already, when another program ran in this process before. */
static file_owner file_ask(int fd)
{
    profile_head head;
    long n = os_read(fd, &head, sizeof head);
    if (n == 0)
        return FILE_EMPTY;
    if (n < (long)sizeof head || memcmp(head.magic, PROFILE_MAGIC, sizeof head.magic) != 0)
        return FILE_ALIEN;
    if (head.started != process_started(head.pid))
        return FILE_LEFT;
    return head.pid != os_pid() ? FILE_TAKEN : head.version == PROFILE_VERSION ? FILE_MINE : FILE_LEFT;
}

/* Zeros in all of it: a full disk must say so now, not kill the program later, when a page is touched. Its size does
 * not change where it is a profile already: another process may have it mapped. */
static bool file_clear(const char *path)
{
    static char zeros[4096] RARE;
    int fd = os_open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    bool good = fd >= 0;
    for (size_t done = 0; good && done < sizeof(profile_file); done += sizeof zeros)
        good = os_write(fd, zeros, size_min(sizeof zeros, sizeof(profile_file) - done));
    if (fd >= 0)
        os_close(fd);
    return good;
}

static void head_begin(profile_head *f)
{
    const char *program = os_program(), *slash = program ? strrchr(program, '/') : NULL;
    f->version = PROFILE_VERSION;
    f->rows = PROFILE_ROWS;
    f->quantum = QUANTUM;
    f->pid = os_pid();
    f->started = process_started(f->pid);
    snprintf(f->program, sizeof f->program, "%s", slash ? slash + 1 : program ? program : "");
    memcpy(f->magic, PROFILE_MAGIC, sizeof f->magic);
}

/* What the program before had live went with it. */
static void file_resume(profile_file *f)
{
    for (size_t i = 0; i < PROFILE_ROWS; i++) {
        f->row[i].held = profile_at_peak(f, i);
        f->row[i].moment = f->head.moment;
        f->row[i].live = 0;
    }
    f->head.live_bytes = 0;
}

static int path_open(const char *path, file_owner *owner)
{
    int fd = os_open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (fd >= 0)
        *owner = file_ask(fd);
    return fd;
}

static bool refuse(const char *path, const char *why, int error)
{
    report("POOLMALLOC_PROFILE: '%s' %s (error %d); no profile is recorded", path, why, error);
    return false;
}

/* A path without %p belongs to the first process that comes; while that lives, others add their process id to it. */
static bool file_open(void)
{
    static char path[PATH_BYTES] RARE;
    file_owner owner = FILE_EMPTY;
    if (!path_expand(pm_config.profile, path, sizeof path - 16))
        return refuse(pm_config.profile, "is too long", ENAMETOOLONG);
    int fd = path_open(path, &owner);
    if (fd >= 0 && owner == FILE_TAKEN) {
        os_close(fd);
        snprintf(path + strlen(path), 16, ".%u", os_pid());
        fd = path_open(path, &owner);
    }
    if (fd < 0)
        return refuse(path, "cannot be opened", -fd);
    bool good = owner == FILE_MINE || ((owner == FILE_EMPTY || owner == FILE_LEFT) && file_clear(path));
    profile_file *f = good ? os_map_file(fd, sizeof *f) : NULL;
    os_close(fd);
    if (!f)
        return owner >= FILE_TAKEN ? refuse(path, "is there, and is no profile to write over", EEXIST)
                                   : refuse(path, "cannot be written", EIO);
    if (owner == FILE_MINE)
        file_resume(f);
    head_begin(&f->head);
    file = f;
    return true;
}

/* ---- what the rest of the library calls ---- */

static bool enter(void)
{
    if (busy)
        return false;
    busy = true;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    os_lock_take(&lock);
    return true;
}

static void leave(void)
{
    os_lock_give(&lock);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    busy = false;
}

static bool file_ready(void)
{
    if (!file && !refused)
        refused = !file_open();
    return file != NULL;
}

/* What was never recorded is not counted. */
static void *note_alloc(void *p, size_t size)
{
    if (!enter())
        return p;
    if (file_ready()) {
        uint16_t *shadow = region_holds(p) ? shadow_of(p) : NULL;
        if (shadow)
            block_remove(shadow); /* given back by a handler that came in between */
        profile_row *r = row_of(size);
        row_hold(r);
        r->calls++;
        if (shadow)
            block_add(shadow, size);
        else if (size > BLOCK_MAX)
            r->most = size_max(r->most, ++r->live);
    }
    leave();
    return p;
}

static bool forget(const void *p)
{
    if (!enter())
        return false;
    uint16_t *shadow = file ? shadow_of(p) : NULL;
    bool recorded = shadow && block_remove(shadow);
    leave();
    return recorded;
}

static void forget_large(void)
{
    if (!enter())
        return;
    profile_row *r = file ? &file->row[PROFILE_LARGE] : NULL;
    if (r && r->live > 0) {
        row_hold(r);
        r->live--;
    }
    leave();
}

static void note_free(const void *p, size_t usable)
{
    if (region_holds(p))
        forget(p);
    else if (usable > BLOCK_MAX)
        forget_large();
}

static void note_resize(const void *p, size_t size)
{
    if (forget(p))
        note_alloc((void *)p, size);
}

/* No more than was asked for, else a program that uses all of its blocks would tell what the block sizes are, not what it
 * needs. */
static size_t note_usable(const void *p, size_t most)
{
    if (!enter())
        return most;
    const uint16_t *shadow = shadow_of(p);
    size_t size = shadow && *shadow && *shadow < UINT16_MAX ? *shadow : most;
    leave();
    return size;
}

/* The child's blocks of before the fork are its parent's to count. */
static void fork_child(void)
{
    busy = false;
    if (file)
        os_unmap(file, sizeof *file);
    file = NULL;
    for (size_t i = 0; i < CHUNKS; i++)
        if (chunks[i])
            os_purge(chunks[i], CHUNK_BYTES);
}

/* Nothing is pre-allocated, and the largest size is BLOCK_MAX, in the last one's place if there are too many. */
static void sizes_raise(size_list *l)
{
    for (uint32_t i = 0; i < l->length; i++)
        l->at[i].count = 0;
    if (l->at[l->length - 1].size == BLOCK_MAX)
        return;
    l->length = (uint32_t)size_min(l->length + 1, CLASS_MALLOC_MAX);
    l->at[l->length - 1] = (block_size){BLOCK_MAX, 0};
}

void profile_init(void)
{
    static const watcher profiling = {note_alloc, note_free, note_resize, note_usable};
    if (!file_open())
        return;
    sizes_raise(&pm_config.sizes);
    pthread_atfork(NULL, NULL, fork_child);
    watch_register(&profiling, true);
}
