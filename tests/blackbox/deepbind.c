/* Blocks of a plugin loaded with RTLD_DEEPBIND, whose malloc is not ours, come to our free, realloc and
 * malloc_usable_size: all of them must know a foreign block and hand it on. Arguments: the plugin's path; with another, the flag
 * is cleared, and the other way round (a pool's block to the plugin's free) works as well. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>

#include "check.h"

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_DEEPBIND);
    CHECKF(plugin != NULL, "dlopen: %s", dlerror());
    void *(*make)(size_t) = (void *(*)(size_t))dlsym(plugin, "plugin_make");
    void (*release)(void *) = (void (*)(void *))dlsym(plugin, "plugin_release");
    CHECK(make != NULL && release != NULL);
    for (size_t size = 1; size < 300000; size += size / 16 + 1) {
        free(make(size));
        unsigned char *block = make(size);
        CHECK(malloc_usable_size(block) >= size);
        CHECK((block = realloc(block, size * 2)) != NULL);
        CHECK(block[0] == 0x11 && block[size - 1] == 0x11);
        memset(block, 0x22, size * 2);
        free(block);
        release(make(size));
        if (argc > 2)
            release(malloc(size));
    }
    dlclose(plugin);
    return 0;
}
