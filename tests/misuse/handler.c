/* handler.c: a program with a handler of its own for SIGSEGV uses a block after it was given back. The script that runs it expects
 * the report of POOLMALLOC_GUARD, and then exit status 7: the handler's. */
#include "cases.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static void on_fault(int number)
{
    _exit(number == SIGSEGV ? 7 : 8);
}

int main(void)
{
    signal(SIGSEGV, on_fault);
    char *p = opaque(malloc(40));
    free(p);
    *opaque(p) = 1;
    return 0;
}
