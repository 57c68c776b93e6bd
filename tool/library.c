/* library.c: where the library is, and a command that runs with it. May touch /proc/self/exe, LD_PRELOAD, and becomes CMD by exec. */
#include "tool.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Beside the tool (build folder) or in the library folder it was installed to; without the development files only under the
 * name with a version. */
bool library_find(bool hardened, char path[LIBRARY_PATH])
{
    static const char *const places[] = {"", "/" POOLMALLOC_LIB_FROM_BIN}, *const ends[] = {"", "." POOLMALLOC_SOVERSION};
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    const char *folder = dirname(self);
    for (size_t i = 0; n > 0 && i < 4; i++) {
        snprintf(path, LIBRARY_PATH, "%s%s/libpoolmalloc%s.so%s", folder, places[i / 2], hardened ? "-hardened" : "", ends[i % 2]);
        if (access(path, R_OK) == 0)
            return true;
    }
    fprintf(stderr, "poolmalloc: libpoolmalloc%s.so is neither beside this program nor in its library folder\n",
            hardened ? "-hardened" : "");
    return false;
}

/* The loader takes spaces and colons as ends of a name, and then runs the command without pools. */
bool preload_add(bool hardened)
{
    char path[LIBRARY_PATH], *list;
    const char *before = getenv("LD_PRELOAD");
    if (!library_find(hardened, path))
        return false;
    if (strpbrk(path, " :$")) {
        fprintf(stderr, "poolmalloc: LD_PRELOAD cannot name '%s': a space, colon or $ is in the path; move or install it elsewhere\n", path);
        return false;
    }
    if (asprintf(&list, "%s%s%s", path, before && *before ? ":" : "", before ? before : "") < 0)
        return false;
    setenv("LD_PRELOAD", list, 1);
    free(list);
    return true;
}

int command_exec(char **command)
{
    execvp(command[0], command);
    int status = errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
    fprintf(stderr, "poolmalloc: cannot run '%s': %s\n", command[0], strerror(errno));
    return status;
}

_Noreturn void child_exec(char **command)
{
    dup2(2, 1);
    _exit(preload_add(false) ? command_exec(command) : EXIT_CANNOT_RUN);
}
