/* config.h: The settings: read once, from an array of NAME=VALUE strings, into our own memory. */
#pragma once

#include "ground/base.h"

#define LIMIT_SMALLEST (8 * MIB) /* below it a limit is obeyed, with a warning: a few pools will eat it up */
#define DELAY_NEVER UINT32_MAX
#define RATE_MOST 1000000000

typedef enum { OVERFLOW_FORWARD, OVERFLOW_FAIL, OVERFLOW_ABORT } overflow_policy;
typedef enum { HUGEPAGES_AUTO, HUGEPAGES_ALWAYS, HUGEPAGES_NEVER } hugepages_policy;
typedef enum { DEEPBIND_CLEAR, DEEPBIND_KEEP } deepbind_policy;
typedef enum { FORMAT_TEXT, FORMAT_JSON, FORMAT_PROMETHEUS } stats_format;

typedef struct block_size {
    uint32_t size;  /* bytes, a multiple of QUANTUM */
    uint32_t count; /* blocks to pre-allocate */
} block_size;

typedef struct size_list {
    uint32_t length;
    bool learn;     /* only to begin with: auto */
    block_size at[CLASS_MALLOC_MAX]; /* ascending, no size twice */
} size_list;

typedef struct stats_wish {
    bool exit, full;
    int signal; /* 0: none */
} stats_wish;

typedef struct config {
    size_list sizes;
    bool prefault, lock, check, verbose, disable;
    size_t limit; /* bytes; 0: none */
    size_t who;   /* bytes between two samples; 0: off */
    overflow_policy overflow;
    uint32_t purge_delay; /* milliseconds, or DELAY_NEVER */
    uint32_t guard; /* one allocation in so many; 0: none */
    hugepages_policy hugepages;
    deepbind_policy deepbind;
    stats_wish stats;
    stats_format stats_format;
    char stats_file[256], profile[256], programs[256];
} config;

extern config pm_config __attribute__((visibility("hidden")));
extern bool pm_config_loaded; /* by config_load */

/* Called with one line of text for each bad value. */
typedef void config_complain(const char *line);

/* The defaults, and every POOLMALLOC_ variable of `environment` (NULL-terminated, or NULL: none). A bad value leaves the default.
 * Returns how many were bad, or do not exist. complain: NULL, for lines on stderr. O(environment). */
unsigned config_load(config *c, char *const *environment, config_complain *complain);
/* Whether the comma list `names` is empty or holds the last part of `path`. */
bool config_names_program(const char *names, const char *path);

/* The words of the settings that choose among some, by their enum; each list ends with NULL. */
extern const char *const config_words_overflow[], *const config_words_hugepages[], *const config_words_format[],
    *const config_words_deepbind[];

typedef struct signal_name {
    const char *name; /* without SIG; NULL: the end */
    int number;
} signal_name;

extern const signal_name config_signals[]; /* that STATS=signal can name */

bool size_parse(const char *from, const char *end, size_t *size);
