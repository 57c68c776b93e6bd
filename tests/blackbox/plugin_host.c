/* A C program that loads a C++ plugin. Argument: the plugin's path. */
#include <dlfcn.h>

#include "check.h"

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    free(malloc(100));
    for (int round = 0; round < 3; round++) {
        void *plugin = dlopen(argv[1], round % 2 ? RTLD_NOW | RTLD_GLOBAL : RTLD_LAZY | RTLD_LOCAL);
        CHECKF(plugin != NULL, "dlopen: %s", dlerror());
        int (*fail)(void) = (int (*)(void))dlsym(plugin, "plugin_fail");
        size_t (*work)(void) = (size_t (*)(void))dlsym(plugin, "plugin_work");
        CHECK(fail != NULL && work != NULL);
        int good = fail();
        CHECKF(good >= 4, "only %d of 4 failures were reported as C++ does", good);
        CHECK(work() == 10000);
        dlclose(plugin);
    }
    return 0;
}
