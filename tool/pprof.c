/* pprof.c: what call stacks hold, as pprof's profile.proto, gzipped. One location and one function a name. */
#include "held.h"
#include "tool.h"

#include "profile.pb-c.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

enum { TEXT_NONE, TEXT_BLOCKS, TEXT_COUNT, TEXT_SPACE, TEXT_BYTES, TEXT_PROGRAM, TEXT_WHAT, TEXT_NAMES };

static void texts_make(Pprof__Profile *p, const held_report *r, size_t names)
{
    p->n_string_table = TEXT_NAMES + names;
    p->string_table = need(calloc(p->n_string_table, sizeof *p->string_table));
    char **strings = p->string_table;
    strings[TEXT_NONE] = need(strdup(""));
    strings[TEXT_BLOCKS] = need(strdup("inuse_objects"));
    strings[TEXT_COUNT] = need(strdup("count"));
    strings[TEXT_SPACE] = need(strdup("inuse_space"));
    strings[TEXT_BYTES] = need(strdup("bytes"));
    strings[TEXT_PROGRAM] = need(strdup(r->command));
    strings[TEXT_WHAT] = need(strdup(r->what));
    for (size_t i = 0; i < names; i++)
        strings[TEXT_NAMES + i] = need(strdup(unwinder_name(r->held->names, (uint32_t)i)->text));
}

static size_t names_count(const held_report *r)
{
    size_t count = 0;
    for (size_t i = 0; i < r->held->stack_count; i++)
        for (size_t k = 0; k < r->held->stacks[i]->depth; k++)
            count = r->held->stacks[i]->names[k] >= count ? r->held->stacks[i]->names[k] + 1 : count;
    return count;
}

/* A location's address only has to be another one for each. */
static void locations_make(Pprof__Profile *p, size_t names)
{
    p->n_location = p->n_function = names;
    p->location = need(calloc(names + 1, sizeof *p->location));
    p->function = need(calloc(names + 1, sizeof *p->function));
    for (size_t i = 0; i < names; i++) {
        Pprof__Location *l = p->location[i] = need(malloc(sizeof *l));
        Pprof__Function *f = p->function[i] = need(malloc(sizeof *f));
        Pprof__Line *line = need(malloc(sizeof *line));
        pprof__location__init(l);
        pprof__function__init(f);
        pprof__line__init(line);
        f->id = l->id = line->function_id = i + 1;
        f->name = f->system_name = (int64_t)(TEXT_NAMES + i);
        l->mapping_id = 1;
        l->address = 0x1000 + 16 * i;
        l->n_line = 1;
        l->line = need(malloc(sizeof(Pprof__Line *)));
        l->line[0] = line;
    }
}

static void sample_make(Pprof__Profile *p, const held_stack *stack, const held_sum *sum)
{
    Pprof__Sample *s = need(malloc(sizeof *s));
    pprof__sample__init(s);
    s->n_location_id = stack->depth;
    s->location_id = need(calloc(stack->depth + 1, sizeof *s->location_id));
    for (size_t k = 0; k < stack->depth; k++)
        s->location_id[k] = stack->names[stack->depth - 1 - k] + 1;
    s->n_value = 2;
    s->value = need(calloc(2, sizeof *s->value));
    s->value[0] = (int64_t)(sum->blocks + 0.5);
    s->value[1] = (int64_t)(sum->bytes + 0.5);
    p->sample[p->n_sample++] = s;
}

static Pprof__ValueType *type_make(int64_t type, int64_t unit)
{
    Pprof__ValueType *t = need(malloc(sizeof *t));
    pprof__value_type__init(t);
    t->type = type;
    t->unit = unit;
    return t;
}

static Pprof__Profile *profile_make(const held_report *r)
{
    Pprof__Profile *p = need(malloc(sizeof *p));
    size_t names = names_count(r);
    pprof__profile__init(p);
    texts_make(p, r, names);
    p->n_sample_type = 2;
    p->sample_type = need(calloc(2, sizeof *p->sample_type));
    p->sample_type[0] = type_make(TEXT_BLOCKS, TEXT_COUNT);
    p->sample_type[1] = type_make(TEXT_SPACE, TEXT_BYTES);
    p->period_type = type_make(TEXT_SPACE, TEXT_BYTES);
    p->period = (int64_t)r->rate;
    p->time_nanos = (int64_t)time(NULL) * 1000000000;
    p->duration_nanos = (int64_t)(r->seconds * 1e9);
    p->n_comment = 1;
    p->comment = need(malloc(sizeof *p->comment));
    p->comment[0] = TEXT_WHAT;
    p->n_mapping = 1;
    p->mapping = need(malloc(sizeof(Pprof__Mapping *)));
    p->mapping[0] = need(malloc(sizeof(Pprof__Mapping)));
    pprof__mapping__init(p->mapping[0]);
    p->mapping[0]->id = 1;
    p->mapping[0]->memory_start = 0x1000;
    p->mapping[0]->memory_limit = 0x1000 + 16 * (names + 1);
    p->mapping[0]->filename = TEXT_PROGRAM;
    p->mapping[0]->has_functions = 1;
    locations_make(p, names);
    p->sample = need(calloc(r->look->count + 1, sizeof *p->sample));
    for (size_t i = 0; i < r->look->count; i++)
        if (r->look->sum[i].bytes >= 0.5)
            sample_make(p, r->held->stacks[i], &r->look->sum[i]);
    return p;
}

bool held_write_pprof(const held_report *r, const char *path)
{
    Pprof__Profile *p = profile_make(r);
    size_t bytes = pprof__profile__get_packed_size(p);
    uint8_t *packed = need(malloc(bytes + 1));
    pprof__profile__pack(p, packed);
    pprof__profile__free_unpacked(p, NULL);
    gzFile file = gzopen(path, "wb");
    bool good = file && gzwrite(file, packed, (unsigned)bytes) == (int)bytes;
    good = file && gzclose(file) == Z_OK && good;
    free(packed);
    return good;
}
