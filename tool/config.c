/* config.c: the settings as text: what ground/config.c reads is written back here, a print_KIND for each of its kinds. May touch
 * ground's settings and stdout. */
#include "tool.h"

#include <stdio.h>
#include <string.h>

static void print_flag(const bool *field) { printf("%d", *field); }
static void print_path(const char (*field)[256]) { printf("%s", *field); }
static void print_names(const char (*field)[256]) { printf("%s", **field ? *field : "all"); }
static void print_overflow(const overflow_policy *field) { printf("%s", config_words_overflow[*field]); }
static void print_hugepages(const hugepages_policy *field) { printf("%s", config_words_hugepages[*field]); }
static void print_deepbind(const deepbind_policy *field) { printf("%s", config_words_deepbind[*field]); }
static void print_format(const stats_format *field) { printf("%s", config_words_format[*field]); }

static void print_number(size_t n, size_t special, const char *word)
{
    if (n == special)
        printf("%s", word);
    else
        printf("%zu", n);
}
static void print_limit(const size_t *field) { print_number(*field, 0, "none"); }
static void print_rate(const uint32_t *field) { print_number(*field, 0, "off"); }
static void print_step(const size_t *field) { print_number(*field, 0, "off"); }
static void print_delay(const uint32_t *field) { print_number(*field, DELAY_NEVER, "never"); }

static const char *signal_name_of(int number)
{
    const signal_name *s = config_signals;
    while (s->name && s->number != number)
        s++;
    return s->name;
}

static void print_stats(const stats_wish *field)
{
    const char *comma = "";
    if (!field->exit && !field->full && !field->signal)
        printf("off");
    if (field->exit) {
        printf("exit");
        comma = ",";
    }
    if (field->signal) {
        printf("%ssignal=%s", comma, signal_name_of(field->signal));
        comma = ",";
    }
    if (field->full)
        printf("%sfull", comma);
}

static void print_block_sizes(const size_list *field)
{
    if (field->learn) {
        printf("auto");
        return;
    }
    for (uint32_t i = 0; i < field->length; i++) {
        printf("%s%u", i ? "," : "", field->at[i].size);
        if (field->at[i].count)
            printf(":%u", field->at[i].count);
    }
}

void config_print(const config *c)
{
#define OPTION(name, field, kind, fallback, help)                                                                      \
    printf("POOLMALLOC_" #name "=");                                                                                   \
    print_##kind(&c->field);                                                                                           \
    printf("\n");
#include "ground/options.def"
#undef OPTION
}

void option_explain(const char *help)
{
    for (const char *line = help; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        printf("%*s%.*s\n", line == help ? 6 : 10, "", (int)strcspn(line, "\n"), line);
}

/* The values are words when all of them are, in small letters: then they are all there are. */
void option_values(const char *help, char *to, size_t room)
{
    size_t used = 0;
    for (const char *line = strchr(help, '\n'); line; line = strchr(line + 1, '\n')) {
        size_t n = strcspn(line + 1, ":");
        if (strspn(line + 1, "abcdefghijklmnopqrstuvwxyz0123456789") != n || used + n + 2 > room) {
            snprintf(to, room, "VALUE");
            return;
        }
        used += (size_t)snprintf(to + used, room - used, "%s%.*s", used ? "|" : "", (int)n, line + 1);
    }
    if (!strchr(to, '|'))
        snprintf(to, room, "VALUE");
}

void config_help(void)
{
#define OPTION(name, field, kind, fallback, help)                                                                      \
    printf("  POOLMALLOC_" #name " (default %s)\n", *fallback ? fallback : "unset");                                   \
    option_explain(help);
#include "ground/options.def"
#undef OPTION
}
