/* A program that loads plugins with pools of their own. Arguments: what to do, then the plugins' paths. */
#include <dlfcn.h>

#include "check.h"

/* Its own copy of the archive, which the plugins' do not meet. */
static void *load(const char *path)
{
    void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CHECKF(plugin != NULL, "dlopen: %s", dlerror());
    return plugin;
}

static void *symbol(void *plugin, const char *name)
{
    void *found = dlsym(plugin, name);
    CHECKF(found != NULL, "no %s", name);
    return found;
}

static void use(void *plugin)
{
    CHECK(((int (*)(void))symbol(plugin, "plugin_use"))());
}

struct space {
    long pages;
    int mappings;
};

static struct space space_now(void)
{
    struct space now = {0, 0};
    char line[4096];
    FILE *statm = fopen("/proc/self/statm", "r"), *maps = fopen("/proc/self/maps", "r");
    CHECK(statm && maps && fscanf(statm, "%ld", &now.pages) == 1);
    while (fgets(line, sizeof line, maps))
        now.mappings++;
    fclose(statm);
    fclose(maps);
    return now;
}

/* More often than there are pthread keys. */
static void cycles(const char *path)
{
    struct space before = {0, 0};
    for (int i = 0; i < 1100; i++) {
        void *plugin = load(path);
        use(plugin);
        dlclose(plugin);
        if (i == 20)
            before = space_now();
    }
    struct space after = space_now();
    CHECKF(after.mappings < before.mappings + 10, "%d mappings, then %d", before.mappings, after.mappings);
    CHECKF(after.pages < before.pages + (64 << 8), "%ld pages, then %ld", before.pages, after.pages);
}

/* Several at once, each a file of its own: their regions find a place each. */
static void many(int count, char **paths)
{
    for (int i = 0; i < count; i++)
        use(load(paths[i]));
    CHECKF(space_now().pages < 4L << 18, "%ld pages", space_now().pages);
}

/* The end of the program is not the end of a plugin's pools: its threads go on. */
static void ends(const char *path)
{
    ((void (*)(void))symbol(load(path), "plugin_run_on"))();
    exit(0);
}

/* Each plugin's containers, then containers that one fills and the other empties. */
static void shared(char **paths)
{
    void *plugins[2];
    enum { N = 100000 };
    for (int round = 0; round < 3; round++)
        for (int from = 0; from < 2; from++)
            for (int to = 0; to < 2; to++) {
                plugins[from] = load(paths[from]);
                plugins[to] = load(paths[to]);
                void *list = ((void *(*)(long))symbol(plugins[from], "plugin_fill"))(N);
                long sum = ((long (*)(void *))symbol(plugins[to], "plugin_empty"))(list);
                CHECKF(sum == (long)N * (N - 1) / 2, "sum %ld", sum);
            }
}

int main(int argc, char **argv)
{
    CHECK(argc > 2);
    if (strcmp(argv[1], "cycles") == 0)
        cycles(argv[2]);
    else if (strcmp(argv[1], "many") == 0)
        many(argc - 2, argv + 2);
    else if (strcmp(argv[1], "ends") == 0)
        ends(argv[2]);
    else
        shared(argv + 2);
    return 0;
}
