/* A process without a shared C++ runtime. Argument: a plugin that has one inside. Without: there is none at all, and only the
 * nothrow forms can tell that memory is out. */
#include <dlfcn.h>

#include "check.h"

static void without_runtime(void)
{
    static const char *const names[] = {"_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t"}, *const ends[] = {"_ZdlPv", "_ZdaPv"};
    for (int i = 0; i < 2; i++) {
        void *(*nothrow)(size_t, const void *) = (void *(*)(size_t, const void *))dlsym(RTLD_DEFAULT, names[i]);
        void (*end)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, ends[i]);
        CHECK(nothrow != NULL && end != NULL && nothrow(opaque((size_t)1 << 46), "") == NULL);
        end(nothrow(100, ""));
    }
}

int main(int argc, char **argv)
{
    if (argc == 1) {
        without_runtime();
        return 0;
    }
    void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    CHECKF(plugin != NULL, "dlopen: %s", dlerror());
    int (*fails)(void) = (int (*)(void))dlsym(plugin, "plugin_fails");
    int failed = fails();
    CHECKF(failed == 0, "expectation %d", failed);
    CHECK(dlclose(plugin) == 0 && dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD) == NULL);
    return 0;
}
