/* misuse.c: see misuse.h. */
#include "pools/misuse.h"

#include "ground/config.h"
#include "ground/os.h"
#include "ground/text.h"

#include <fcntl.h>

#define FRAMES 12

const char *maker_name(maker m)
{
    static const char *const names[] = {"malloc", "new", "new[]"};
    return names[m];
}

static const char *call_name(call c)
{
    static const char *const names[] = {"free",   "free_sized", "operator delete", "operator delete[]", "realloc", "malloc_usable_size",
                                        "malloc", "pm_check",   "exit",            "access"};
    return names[c];
}

bool misuse_of_giving(misuse *m, giving g, made how, size_t asked, size_t said)
{
    static const char *const texts[] = {"made by malloc", "made by new", "made by new[]"};
    bool fits = giving_fits(g, how);
    m->what = maker_of(giving_call(g)) != made_by(how) ? texts[made_by(how)] : NULL;
    m->said = fits ? said : SIZE_MAX;
    m->said_align = made_align(g >> 8 & ((1 << MADE_BITS) - 1));
    return !fits || (said != SIZE_MAX && said != asked);
}

static void add_state(text *t, const misuse *m)
{
    if (m->state == BLOCK_LIVE)
        text_add(t, made_align(m->made) ? ": in use, %zu bytes asked for by %s, aligned to %zu" : ": in use, %zu bytes asked for by %s",
                 m->asked, maker_name(made_by(m->made)), made_align(m->made));
    else if (m->state == BLOCK_NEVER)
        text_add(t, ": never handed out");
    else if (m->state == BLOCK_FREED)
        text_add(t, m->freed_by ? ": given back %u ms ago by thread %u" : ": given back before", m->freed_ago, m->freed_by);
}

static void add_block(text *t, const misuse *m)
{
    if (!m->block) {
        text_add(t, m->pool ? "poolmalloc: pool %s\n" : "poolmalloc: no block of the pools lies there\n", m->pool);
        return;
    }
    text_add(t, "poolmalloc: block %p of %zu bytes, ", m->block, m->bytes);
    if (m->pool)
        text_add(t, "pool %s", m->pool);
    else
        text_add(t, m->own_pages ? "on pages of its own" : "pool malloc-%zu", m->bytes);
    add_state(t, m);
    text_add(t, "\n");
}

static void add_callers(text *t, const void *caller)
{
    uintptr_t from[FRAMES];
    size_t n = os_callers(from, FRAMES, (uintptr_t)caller);
    text_add(t, "poolmalloc: thread %u of process %u, called from", os_thread(), os_pid());
    for (size_t i = 0; i < n; i++)
        text_add(t, " 0x%zx", (size_t)from[i]);
    text_add(t, n ? "\n" : " nowhere known\n");
}

static int report_open(void)
{
    char path[320];
    int fd = -1;
    if (*pm_config.stats_file && path_expand(pm_config.stats_file, path, sizeof path))
        fd = os_open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK, 0644);
    return fd >= 0 ? fd : pm_stderr;
}

static void add_what(text *t, const misuse *m)
{
    if (m->what)
        text_add(t, "%s\n", m->what);
    else if (m->said != SIZE_MAX)
        text_add(t, "given back as %zu bytes\n", m->said);
    else
        text_add(t, m->said_align ? "given back with an alignment of %zu\n" : "given back without its alignment\n", m->said_align);
}

void misuse_tell(const misuse *m)
{
    text t = {.fd = report_open()};
    if (t.fd < 0)
        return;
    text_add(&t, "poolmalloc: %s(%p): ", m->function ? m->function : call_name(m->call), m->pointer);
    add_what(&t, m);
    add_block(&t, m);
    add_callers(&t, m->caller);
    text_flush(&t);
}

void misuse_abort(const misuse *m)
{
    misuse_tell(m);
    os_abort();
}
