/* mallinfo.c: what tells and tunes: the next allocator's answer, and the pools'. */
#include "ground/config.h"
#include "ground/os_malloc.h"
#include "insight/report.h"
#include "pools/alloc.h"
#include "preload/large.h"
#include "preload/start.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEXT(result, name, parameters)                                                                                 \
    result(*next) parameters;                                                                                          \
    *(void **)&next = start_done() ? next_function(#name) : NULL

PM_EXPORT int malloc_trim(size_t pad)
{
    NEXT(int, malloc_trim, (size_t));
    int saved = errno;
    size_t bytes = pm_pools_ready ? pools_trim() : 0;
    errno = saved;
    large_away(1);
    int released = next ? next(pad) : 0;
    large_away(-1);
    return released || bytes > 0;
}

PM_EXPORT int mallopt(int parameter, int value)
{
    NEXT(int, mallopt, (int, int));
    STORE(&pm_next_tuned, true);
    return next ? next(parameter, value) : 0;
}

PM_EXPORT void malloc_stats(void)
{
    NEXT(void, malloc_stats, (void));
    if (next)
        next();
    stats_report_to(2, FORMAT_TEXT);
}

PM_EXPORT struct mallinfo2 mallinfo2(void)
{
    NEXT(struct mallinfo2, mallinfo2, (void));
    struct mallinfo2 m;
    memset(&m, 0, sizeof m);
    large_away(1);
    if (next)
        m = next();
    large_away(-1);
    stats_sums s = stats_sum();
    m.arena += s.committed;
    m.uordblks += s.used;
    m.fordblks += s.committed - size_min(s.used, s.committed);
    m.keepcost += s.spare;
    return m;
}

static int saturate(size_t n) { return n > INT32_MAX ? INT32_MAX : (int)n; }

PM_EXPORT struct mallinfo mallinfo(void)
{
    struct mallinfo2 m = mallinfo2();
    return (struct mallinfo){saturate(m.arena),    saturate(m.ordblks),  saturate(m.smblks),  saturate(m.hblks),
                             saturate(m.hblkhd),   saturate(m.usmblks),  saturate(m.fsmblks), saturate(m.uordblks),
                             saturate(m.fordblks), saturate(m.keepcost)};
}

/* One element more, before the end of the document, so that it stays one document. */
static void info_write(FILE *stream, const char *document, const pm_stats *s)
{
    const char *tail = document ? strrchr(document, '<') : NULL;
    fprintf(stream, "%.*s<poolmalloc version=\"%s\" committed=\"%zu\" used=\"%zu\" kept=\"%zu\">\n", tail ? (int)(tail - document) : INT32_MAX,
            tail ? document : "<malloc version=\"1\">\n", PM_VERSION, s->committed_bytes, s->used_bytes, s->kept_bytes);
    for (size_t i = 0; i < s->pools; i++)
        if (s->row[i].slabs)
            fprintf(stream, "<pool size=\"%zu\" slabs=\"%zu\" capacity=\"%zu\" used=\"%zu\"/>\n", s->row[i].block_size,
                    s->row[i].slabs, s->row[i].capacity, s->row[i].used);
    fprintf(stream, "</poolmalloc>\n%s", tail ? tail : "</malloc>\n");
}

PM_EXPORT int malloc_info(int options, FILE *stream)
{
    NEXT(int, malloc_info, (int, FILE *));
    char *document = NULL;
    size_t bytes = 0;
    if (options != 0)
        return EINVAL;
    pm_stats *s = malloc(sizeof *s);
    if (!s)
        return ENOMEM;
    FILE *memory = next ? open_memstream(&document, &bytes) : NULL;
    if (memory) {
        next(options, memory);
        fclose(memory);
    }
    stats_copy(s, sizeof *s, false);
    info_write(stream, document, s);
    free(document);
    free(s);
    return 0;
}
