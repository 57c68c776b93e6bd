/* A plugin that is loaded with RTLD_DEEPBIND: its malloc is then the C library's, whatever is preloaded. */
#include <stdlib.h>
#include <string.h>

void *plugin_make(size_t size);
void plugin_release(void *block);

void *plugin_make(size_t size)
{
    void *block = malloc(size);
    if (block != NULL)
        memset(block, 0x11, size);
    return block;
}

void plugin_release(void *block)
{
    free(block);
}
