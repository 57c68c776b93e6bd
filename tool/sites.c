/* sites.c: the largest call sites of a process, for top. */
#include "tool.h"
#include "who.h"

#include <stdlib.h>
#include <string.h>

struct sites {
    sampler sampler;
    held held;
};

sites *sites_open(pid_t pid, const char **wrong)
{
    sites *s = need(calloc(1, sizeof *s));
    live_result result = sampler_open(&s->sampler, pid, WHO_RATE);
    if (result == LIVE_FOUND && held_open(&s->held, pid, BY_STACK, false))
        return s;
    *wrong = result == LIVE_FOUND ? "libdw refuses" : live_explain(result);
    free(s);
    return NULL;
}

static void site_name(const held *h, const held_stack *stack, char *to, size_t bytes)
{
    size_t used = 0;
    to[0] = 0;
    for (size_t i = stack->depth; i-- > 0 && used + 8 < bytes;)
        used += (size_t)snprintf(to + used, bytes - used, "%s%s", used ? " < " : "", unwinder_name(h->names, stack->names[i])->text);
}

/* Largest first; each stack is one site. */
int sites_take(sites *s, site *to, size_t most)
{
    held_look look;
    int count = 0;
    if (sampler_beat(&s->sampler) != LIVE_FOUND || held_take(&s->held, &s->sampler, s->sampler.word == 0, &look) != LIVE_FOUND)
        return -1;
    for (; count < (int)most; count++) {
        size_t best = 0;
        for (size_t i = 1; i < look.count; i++)
            best = look.sum[i].bytes > look.sum[best].bytes ? i : best;
        if (look.count == 0 || look.sum[best].bytes <= 0)
            break;
        site_name(&s->held, s->held.stacks[best], to[count].text, sizeof to[count].text);
        to[count].bytes = look.sum[best].bytes;
        to[count].error = held_error(&look.sum[best]);
        look.sum[best].bytes = 0;
    }
    free(look.sum);
    return count;
}

void sites_close(sites *s)
{
    sampler_close(&s->sampler);
    held_close(&s->held);
    free(s);
}
