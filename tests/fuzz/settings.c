/* settings.c: any bytes as the value of each setting. Whatever comes, a bad value leaves the default. */
#include "ground/config.h"

#include <stdlib.h>
#include <string.h>

static void ignore(const char *line) { (void)line; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {
#define OPTION(name, field, kind, fallback, help) "POOLMALLOC_" #name "=",
#include "ground/options.def"
#undef OPTION
    };
    size_t count = sizeof names / sizeof *names, length = size ? strlen(names[data[0] % count]) : 0;
    if (size == 0)
        return 0;
    char *variable = malloc(length + size);
    if (!variable)
        return 0;
    memcpy(variable, names[data[0] % count], length);
    memcpy(variable + length, data + 1, size - 1);
    variable[length + size - 1] = 0;
    char *environment[] = {variable, NULL};
    config before, after;
    memset(&before, 0, sizeof before);
    config_default(&before);
    after = before;
    if (config_load(&after, environment, true, ignore) && memcmp(&before, &after, sizeof before) != 0)
        abort();
    for (uint32_t i = 1; i < after.sizes.length; i++)
        if (after.sizes.at[i].size <= after.sizes.at[i - 1].size || after.sizes.at[i].size > BLOCK_MAX)
            abort();
    free(variable);
    return 0;
}
