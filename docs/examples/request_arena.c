/* One arena serves request after request: whatever a request allocates is given back at once when it ends, without a
 * free for each. Within a request, save and rewind undo what an attempt has allocated. */
#include <poolmalloc.h>

#include <stdio.h>
#include <string.h>

typedef struct header {
    struct header *next;
    const char *name, *value;
} header;

static char *text_copy(pm_arena *arena, const char *text, size_t length)
{
    char *copy = pm_arena_alloc(arena, length + 1, 1);
    if (copy) {
        memcpy(copy, text, length);
        copy[length] = 0;
    }
    return copy;
}

/* "name: value" lines; what is none leaves no trace in the arena. */
static header *header_parse(pm_arena *arena, const char *line, size_t length)
{
    pm_arena_mark before = pm_arena_save(arena);
    header *h = pm_arena_alloc(arena, sizeof *h, 0);
    const char *colon = memchr(line, ':', length);
    if (h && colon && colon[1] == ' ') {
        size_t name = (size_t)(colon - line);
        *h = (header){NULL, text_copy(arena, line, name), text_copy(arena, colon + 2, length - name - 2)};
        if (h->name && h->value)
            return h;
    }
    pm_arena_rewind(arena, before);
    return NULL;
}

static unsigned request_serve(pm_arena *arena, const char *text)
{
    header *all = NULL;
    unsigned count = 0;
    for (size_t length; (length = strcspn(text, "\n")) > 0; text += length + (text[length] == '\n')) {
        header *h = header_parse(arena, text, length);
        if (!h)
            continue;
        h->next = all;
        all = h;
        count++;
    }
    return all && strcmp(all->name, "Accept") == 0 ? count : 0;
}

int main(void)
{
    PM_ARENA_AUTO pm_arena *arena = pm_arena_create(NULL, 0);
    if (!arena)
        return 1;
    unsigned headers = 0;
    for (int request = 0; request < 1000; request++) {
        headers += request_serve(arena, "Host: example.org\nthis is none\nAccept: text/html\n");
        pm_arena_reset(arena);
    }
    printf("%u headers in 1000 requests\n", headers);
    return headers == 2000 ? 0 : 1;
}
