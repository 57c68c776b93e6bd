/* A library that opens another by its bare name, which only its own RUNPATH leads to: whoever stands between it and the C
 * library's dlopen must not be taken for the caller. Built twice: as that library (OPENER), and as the program. */
#include <dlfcn.h>

#include "check.h"

#ifdef OPENER
void *library_open(int mode);

void *library_open(int mode)
{
    void *opened = dlopen("libbehind.so", mode);
    return opaque_pointer(opened); /* no jump of its own: this library is the caller */
}
#else
#define DEEPBIND 8 /* RTLD_DEEPBIND */

int main(int argc, char **argv)
{
    CHECK(argc == 2 && dlopen("libbehind.so", RTLD_NOW) == NULL);
    void *opener = dlopen(argv[1], RTLD_NOW);
    CHECKF(opener != NULL, "dlopen: %s", dlerror());
    void *(*open)(int) = (void *(*)(int))dlsym(opener, "library_open");
    CHECKF(open(RTLD_NOW | DEEPBIND) != NULL, "dlopen: %s", dlerror());
    CHECK(open(RTLD_NOW) != NULL);
    return 0;
}
#endif
