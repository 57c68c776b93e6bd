/* config.c: See config.h. Each kind of option has a parse_KIND that reads [at, end) and writes its field only when all of it is
 * good, else it says in `bad` what is wrong with which part. The tool's print_KIND writes the field back. */
#include "ground/config.h"

#include "ground/text.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

config pm_config;
bool pm_config_loaded;

typedef struct token {
    const char *at, *end;
} token;

typedef struct badness {
    token what;
    const char *why;
} badness;

static bool bad_set(badness *bad, token what, const char *why)
{
    *bad = (badness){what, why};
    return false;
}

static bool token_is(token t, const char *word)
{
    for (; t.at < t.end && *t.at == *word; t.at++)
        word++;
    return t.at == t.end && !*word;
}

/* The part of `rest` before the next `separator`; `rest` moves behind it. False at the end of the list. */
static bool token_next(token *rest, char separator, token *part)
{
    if (rest->at == NULL)
        return false;
    const char *cut = memchr(rest->at, separator, (size_t)(rest->end - rest->at));
    *part = (token){rest->at, cut ? cut : rest->end};
    rest->at = cut ? cut + 1 : NULL;
    return true;
}

static bool number_parse(token t, size_t *n)
{
    size_t value = 0;
    for (const char *c = t.at; c < t.end; c++) {
        if (*c < '0' || *c > '9' || value > (SIZE_MAX - 9) / 10)
            return false;
        value = value * 10 + (size_t)(*c - '0');
    }
    *n = value;
    return t.at < t.end;
}

bool size_parse(const char *from, const char *end, size_t *size)
{
    if (end - from > 3 && memcmp(end - 2, "iB", 2) == 0 && (unsigned char)end[-3] > '9') /* KiB is K */
        end -= 2;
    token digits = {from, end};
    unsigned shift = 0;
    if (from < end) {
        char suffix = (char)(end[-1] & ~0x20);
        shift = suffix == 'K' ? 10 : suffix == 'M' ? 20 : suffix == 'G' ? 30 : 0;
        digits.end -= shift != 0;
    }
    size_t n;
    if (!number_parse(digits, &n) || n > SIZE_MAX >> shift)
        return false;
    *size = n << shift;
    return true;
}

/* ---- kinds ---- */

static bool word_find(token t, const char *const *words, unsigned *index)
{
    for (*index = 0; words[*index]; ++*index)
        if (token_is(t, words[*index]))
            return true;
    return false;
}

static bool parse_flag(token t, bool *field, badness *bad)
{
    static const char *const words[] = {"0", "1", "no", "yes", "false", "true", "off", "on", NULL};
    unsigned index;
    if (!word_find(t, words, &index))
        return bad_set(bad, t, "is neither 0 nor 1 (nor no, yes, false, true, off, on)");
    *field = index & 1;
    return true;
}

/* A number, or a word that stands for one. */
#define NUMBER_KIND(kind, type, word, stands_for, is_good, why)                                                        \
    static bool parse_##kind(token t, type *field, badness *bad)                                                       \
    {                                                                                                                  \
        size_t n = stands_for;                                                                                         \
        if (!token_is(t, word) && !(is_good))                                                                          \
            return bad_set(bad, t, why);                                                                               \
        *field = (type)n;                                                                                              \
        return true;                                                                                                   \
    }

NUMBER_KIND(limit, size_t, "none", 0, size_parse(t.at, t.end, &n) && n > 0,
            "is no size (a number of bytes above 0, with K, M or G, or none)")
NUMBER_KIND(step, size_t, "off", 0, size_parse(t.at, t.end, &n) && n >= KIB && n <= 8 * GIB, "is no size from 1K to 8G, nor off")
NUMBER_KIND(delay, uint32_t, "never", DELAY_NEVER, number_parse(t, &n) && n < DELAY_NEVER, "is no number of milliseconds, nor never")
NUMBER_KIND(rate, uint32_t, "off", 0, number_parse(t, &n) && n > 0 && n <= RATE_MOST, "is no number from 1 to 1000000000, nor off")

#define WORDS_KIND(kind, type, why, ...)                                                                               \
    const char *const config_words_##kind[] = {__VA_ARGS__, NULL};                                                     \
    static bool parse_##kind(token t, type *field, badness *bad)                                                       \
    {                                                                                                                  \
        unsigned index;                                                                                                \
        if (!word_find(t, config_words_##kind, &index))                                                                \
            return bad_set(bad, t, why);                                                                               \
        *field = (type)index;                                                                                          \
        return true;                                                                                                   \
    }

WORDS_KIND(overflow, overflow_policy, "is none of forward, fail, abort", "forward", "fail", "abort")
WORDS_KIND(hugepages, hugepages_policy, "is none of auto, always, never", "auto", "always", "never")
WORDS_KIND(deepbind, deepbind_policy, "is neither clear nor keep", "clear", "keep")
WORDS_KIND(format, stats_format, "is none of text, json, prometheus", "text", "json", "prometheus")

static bool parse_path(token t, char (*field)[256], badness *bad)
{
    size_t n = (size_t)(t.end - t.at);
    if (n >= sizeof *field)
        return bad_set(bad, (token){t.at, t.at + 20}, "… is longer than 255 bytes");
    memcpy(*field, t.at, n);
    (*field)[n] = 0;
    return true;
}

static bool parse_names(token t, char (*field)[256], badness *bad)
{
    const char *at = t.at;
    while (at < t.end && *at == ',')
        at++;
    if (at == t.end)
        return bad_set(bad, t, "names no program");
    if (token_is(t, "all"))
        t.end = t.at;
    if (memchr(t.at, '/', (size_t)(t.end - t.at)))
        return bad_set(bad, t, "is a path; names of programs are wanted");
    return parse_path(t, field, bad);
}

const signal_name config_signals[] = {
    {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"HUP", SIGHUP},   {"QUIT", SIGQUIT},   {"WINCH", SIGWINCH},
    {"URG", SIGURG},   {"IO", SIGIO},     {"PWR", SIGPWR},   {"ALRM", SIGALRM},   {"VTALRM", SIGVTALRM},
    {"PROF", SIGPROF}, {"CONT", SIGCONT}, {"TERM", SIGTERM}, {"INT", SIGINT},     {NULL, 0},
};

static int signal_number(token t)
{
    if (t.end - t.at > 3 && memcmp(t.at, "SIG", 3) == 0)
        t.at += 3;
    const signal_name *s = config_signals;
    while (s->name && !token_is(t, s->name))
        s++;
    return s->number;
}

static bool parse_stats(token t, stats_wish *field, badness *bad)
{
    stats_wish wish = {false, false, 0};
    token part;
    if (token_is(t, "off"))
        t.at = NULL;
    while (token_next(&t, ',', &part)) {
        if (token_is(part, "exit"))
            wish.exit = true;
        else if (token_is(part, "full"))
            wish.full = true;
        else if (part.end - part.at <= 7 || memcmp(part.at, "signal=", 7) != 0)
            return bad_set(bad, part, "is none of exit, signal=SIGNAME, full");
        else if ((wish.signal = signal_number((token){part.at + 7, part.end})) == 0)
            return bad_set(bad, part, "names no signal that can be used");
    }
    *field = wish;
    return true;
}

/* 16, 32, 48, 64, then four steps a doubling up to 32 KiB: 40 sizes, at most 1/5 of a block wasted above 64 bytes; pools/class.c has the
 * same as a table. The hardened library, where what is larger costs system calls, has a third and a half of a slab too. */
static void sizes_default(size_list *list)
{
    const uint32_t room = SLAB_SIZE - SLAB_GUARD;
    list->length = 0;
    for (uint32_t size = 16; size <= 32768;) {
        list->at[list->length++] = (block_size){size, 0};
        uint32_t top = 1u << (31 - __builtin_clz(size));
        size += top >= 64 ? top / 4 : 16;
    }
    for (uint32_t parts = 3; PM_HARDENED && parts > 1; parts--)
        list->at[list->length++] = (block_size){room / parts & ~(uint32_t)(QUANTUM - 1), 0};
}

/* Keeps the list sorted; a size that is there already adds its count. False when the list is full. */
static bool sizes_add(size_list *list, block_size added)
{
    uint32_t i = list->length;
    while (i > 0 && list->at[i - 1].size > added.size)
        i--;
    if (i > 0 && list->at[i - 1].size == added.size) {
        list->at[i - 1].count += added.count;
        return true;
    }
    if (list->length == CLASS_MALLOC_MAX)
        return false;
    memmove(list->at + i + 1, list->at + i, (list->length - i) * sizeof *list->at);
    list->at[i] = added;
    list->length++;
    return true;
}

/* The hardened library: beyond the largest the usual ones, as far as there is room. What no pool serves costs it system calls. */
static NOINLINE void sizes_complete(size_list *list)
{
    size_list usual;
    uint32_t largest = list->length ? list->at[list->length - 1].size : 0;
    sizes_default(&usual);
    for (uint32_t i = 0; i < usual.length; i++)
        if (usual.at[i].size > largest)
            sizes_add(list, usual.at[i]);
}

static bool parse_block_sizes(token t, size_list *field, badness *bad)
{
    size_list list = {.length = 0};
    token part, whole = t;
    bool learn = token_is(t, "auto");
    if (learn || token_is(t, "default")) {
        sizes_default(field);
        field->learn = learn;
        return true;
    }
    while (token_next(&t, ',', &part)) {
        token rest = part, size_text, count_text;
        size_t size, count = 0;
        token_next(&rest, ':', &size_text);
        if (!size_parse(size_text.at, size_text.end, &size) || size == 0 || size > BLOCK_MAX)
            return bad_set(bad, part, "is no block size (1 to 64K bytes, with :COUNT to pre-allocate)");
        if (token_next(&rest, ':', &count_text) &&
            (rest.at || !size_parse(count_text.at, count_text.end, &count) || count > UINT32_MAX / 2))
            return bad_set(bad, part, "has a bad count after the colon");
        if (!sizes_add(&list, (block_size){(uint32_t)round_up(size, QUANTUM), (uint32_t)count}))
            return bad_set(bad, whole, "names more than 63 block sizes");
    }
    if (PM_HARDENED)
        sizes_complete(&list);
    *field = list;
    return true;
}

/* ---- the table ---- */

typedef struct option {
    const char *name, *fallback;
    size_t offset;
    bool (*parse)(token, void *field, badness *);
} option;

/* A typed wrapper a row, so that a kind that does not fit its field is a compile-time error. */
#define OPTION(name, field, kind, fallback, help)                                                                      \
    static bool parse_of_##name(token t, void *p, badness *bad)                                                        \
    {                                                                                                                  \
        config *c = (config *)((char *)p - offsetof(config, field));                                                   \
        return parse_##kind(t, &c->field, bad);                                                                        \
    }
#include "ground/options.def"
#undef OPTION

static const option options[] = {
#define OPTION(name, field, kind, fallback, help)                                                                      \
    {#name, fallback, offsetof(config, field), parse_of_##name},
#include "ground/options.def"
#undef OPTION
};
#define OPTION_COUNT (sizeof options / sizeof *options)

static token token_of(const char *s) { return (token){s, s + strlen(s)}; }

/* Whatever bytes a variable holds: one line, that does nothing to a terminal. */
static void line_say(char *line, config_complain *complain)
{
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    if (complain)
        complain(line);
    else
        report("%s", line);
}

static void complain_of(const option *o, const badness *bad, config_complain *complain)
{
    char line[320];
    int length = (int)size_min((size_t)(bad->what.end - bad->what.at), 100);
    snprintf(line, sizeof line, "POOLMALLOC_%s: '%.*s' %s; using %s", o->name, length, bad->what.at, bad->why,
             *o->fallback ? o->fallback : "none");
    line_say(line, complain);
}

static const option *option_find(const char *name, size_t length)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (strlen(options[i].name) == length && strncmp(options[i].name, name, length) == 0)
            return &options[i];
    return NULL;
}

static const char *name_nearest(const char *name, size_t length)
{
    size_t best = 3, distance;
    const char *nearest = NULL;
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if ((distance = word_distance(name, length, options[i].name)) < best) {
            best = distance;
            nearest = options[i].name;
        }
    return nearest;
}

static const char prefix[] = "POOLMALLOC_";

static void complain_of_name(const char *name, size_t length, config_complain *complain)
{
    char line[200];
    const char *nearest = name_nearest(name, length);
    snprintf(line, sizeof line, "%s%.*s: no such setting%s%s%s", prefix, (int)size_min(length, 100), name,
             nearest ? "; did you mean " : "", nearest ? prefix : "", nearest ? nearest : "");
    line_say(line, complain);
}

/* True when the variable is good, or none of ours. */
static bool variable_load(config *c, const char *variable, config_complain *complain)
{
    if (strncmp(variable, prefix, sizeof prefix - 1) != 0)
        return true;
    const char *name = variable + sizeof prefix - 1, *equals = memchr(name, '=', strlen(name));
    if (!equals)
        return true;
    const option *o = option_find(name, (size_t)(equals - name));
    badness bad;
    if (!o) {
        complain_of_name(name, (size_t)(equals - name), complain);
        return false;
    }
    if (o->parse(token_of(equals + 1), (char *)c + o->offset, &bad))
        return true;
    complain_of(o, &bad, complain);
    return false;
}

unsigned config_load(config *c, char *const *environment, config_complain *complain)
{
    unsigned bad = 0;
    badness none;
    pm_config_loaded = true;
    for (size_t i = 0; i < OPTION_COUNT; i++)
        options[i].parse(token_of(options[i].fallback), (char *)c + options[i].offset, &none);
    for (; environment && *environment; environment++)
        if (**environment == 'P' && !variable_load(c, *environment, complain))
            bad++;
    return bad;
}

bool config_names_program(const char *names, const char *path)
{
    token rest = token_of(names), name;
    const char *slash = path ? strrchr(path, '/') : NULL;
    if (!*names)
        return true;
    while (path && token_next(&rest, ',', &name))
        if (token_is(name, slash ? slash + 1 : path))
            return true;
    return false;
}
