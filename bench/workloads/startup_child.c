/* startup_child: what startup starts: one pair, and the end. */
#include <stdlib.h>

int main(void)
{
    char *volatile block = malloc(64);
    *block = 1;
    free(block);
    return 0;
}
