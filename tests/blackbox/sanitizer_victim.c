/* Built with a sanitizer. Argument: fine, use (of a freed block) or lose (blocks). A preloaded allocator must leave every
 * block to the sanitizer, so that the error is still found. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    const char *error = argc > 1 ? argv[1] : "fine";
    for (size_t size = 1; size < 100000; size += 50)
        free(realloc(malloc(size), size * 2));
    char *block = malloc(100);
    memset(block, argc, 100);
    free(block);
    for (int i = 0; i < 100 && strcmp(error, "lose") == 0; i++)
        memset(malloc(100), 1, 100);
    printf("alive\n");
    fflush(stdout);
    return strcmp(error, "use") == 0 ? block[strlen(error)] : 0;
}
