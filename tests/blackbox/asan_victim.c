/* Built with AddressSanitizer, with one error in it. A preloaded allocator must leave every block to the sanitizer,
 * so that the error is still found. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    for (size_t size = 1; size < 100000; size += 50)
        free(realloc(malloc(size), size * 2));
    char *block = malloc(100);
    memset(block, argc, 100);
    free(block);
    printf("alive\n");
    fflush(stdout);
    return argc > 1 ? block[strlen(argv[1])] : 0;
}
