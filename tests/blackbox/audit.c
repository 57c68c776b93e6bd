/* The smallest audit library: with LD_AUDIT the dynamic linker gives it a namespace of its own, with its own C
 * library, before anything is preloaded. */
#define _GNU_SOURCE
#include <link.h>
#include <stdlib.h>

unsigned int la_version(unsigned int version)
{
    free(malloc(100));
    return version;
}
