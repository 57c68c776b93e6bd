/* replay.c: main of a fuzz target without libFuzzer: each line of the files named is an input, in hexadecimal digits. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long inputs;

static void line_run(char *line)
{
    uint8_t *data = malloc(strlen(line) / 2 + 1);
    size_t size = 0;
    for (char *at = line; at[0] > ' ' && at[1] > ' '; at += 2) {
        char digits[] = {at[0], at[1], 0};
        data[size++] = (uint8_t)strtoul(digits, NULL, 16);
    }
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    inputs++;
}

int main(int argc, char **argv)
{
    char *line = NULL;
    size_t room = 0;
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "re");
        if (!file) {
            perror(argv[i]);
            return 1;
        }
        while (getline(&line, &room, file) > 0)
            line_run(line);
        fclose(file);
    }
    free(line);
    printf("%lu inputs\n", inputs);
    return inputs > 0 ? 0 : 1;
}
