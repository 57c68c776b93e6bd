// pools: blocks of one size, containers and arenas: explicit pools against what C and C++ programs use for them now.
// One contender (--variant) does every task it can, each in a child process of its own, for --seconds a task.
// An operation is one block taken and given back, or one element inserted, visited and erased. POOLS_TASK=NAME: that task alone.
#include "contenders.hpp"
#include "tasks.hpp"

#include <csignal>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using task_run = pools::outcome (*)();

struct task {
    const char *name;
    task_run run;
};

enum { TASKS = 9 };
constexpr const char *task_names[TASKS] = {"churn", "threads", "list", "map", "unordered_map", "bulk", "reset", "arena", "memory"};

struct contender {
    const char *name;
    task_run run[TASKS]; // in the order of task_names; null: it cannot
};

// A type says by its members what it can do.
template <class C>
constexpr contender contender_of(const char *name)
{
    contender c{name, {}};
    if constexpr (C::gives_back) {
        c.run[0] = pools::churn<C>;
        if constexpr (C::any_threads)
            c.run[1] = pools::threads<C>;
        c.run[5] = pools::bulk<C>;
    }
    if constexpr (C::has_allocator) {
        c.run[2] = pools::list<C>;
        c.run[3] = pools::map<C>;
        c.run[4] = pools::unordered_map<C>;
    }
    if constexpr (C::resets)
        c.run[6] = pools::reset<C>;
    if constexpr (C::any_size)
        c.run[7] = pools::arena<C>;
    if constexpr (C::small_nodes)
        c.run[8] = pools::memory<C>;
    return c;
}

constexpr contender contenders[] = {
    contender_of<pools::own_pool<PM_SHARING_NONE>>("pool_none"),
    contender_of<pools::own_pool<PM_SHARING_LOCKED>>("pool_locked"),
    contender_of<pools::own_pool<PM_SHARING_THREADS>>("pool_threads"),
    contender_of<pools::own_pool<PM_SHARING_NONE, 8>>("pool_packed"),
    contender_of<pools::own_resource<PM_SHARING_NONE>>("resource_none"),
    contender_of<pools::own_resource<PM_SHARING_LOCKED>>("resource_locked"),
    contender_of<pools::own_resource<PM_SHARING_THREADS>>("resource_threads"),
    contender_of<pools::own_allocator>("allocator"),
    contender_of<pools::own_arena>("arena"),
    contender_of<pools::own_arena_resource>("arena_resource"),
    contender_of<pools::monotonic>("monotonic"),
    contender_of<pools::unsynchronized>("unsynchronized"),
    contender_of<pools::synchronized>("synchronized"),
#ifdef BENCH_BOOST
    contender_of<pools::boost_pool>("boost_pool"),
    contender_of<pools::boost_object_pool>("boost_object_pool"),
#endif
#ifdef BENCH_GLIB
    contender_of<pools::g_slice>("g_slice"),
#endif
#ifdef BENCH_APR
    contender_of<pools::apr>("apr"),
#endif
    contender_of<pools::inline_list>("inline_list"),
    contender_of<pools::plain_malloc>("malloc"),
};
constexpr size_t contenders_count = sizeof contenders / sizeof *contenders;

struct name_list {
    const char *name[contenders_count + 1];
};

constexpr name_list names = [] {
    name_list list{};
    for (size_t i = 0; i < contenders_count; i++)
        list.name[i] = contenders[i].name;
    return list;
}();

pools::outcome *outcomes; // shared with the children; null operations: not done

void task_do(unsigned index, task_run run)
{
    const pid_t child = fork();
    if (child < 0)
        bench_fail("cannot fork");
    if (child == 0) {
        outcomes[index] = run();
        _exit(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0)
        bench_fail(task_names[index]);
}

void run(worker *w)
{
    const char *only = std::getenv("POOLS_TASK");
    outcomes = static_cast<pools::outcome *>(pools::memory_shared(TASKS * sizeof *outcomes));
    for (const contender &c : contenders)
        for (unsigned i = 0; i < TASKS; i++)
            if (variant_is(c.name) && c.run[i] && (!only || strcmp(only, task_names[i]) == 0)) {
                task_do(i, c.run[i]);
                w->done += outcomes[i].operations;
            }
}

// {"churn": 4.2, …}: ns an operation, and of "memory" bytes a block.
void extra(FILE *out)
{
    const char *separator = "";
    fputs("\"tasks\": {", out);
    for (unsigned i = 0; i < TASKS; i++)
        if (outcomes[i].operations) {
            fprintf(out, "%s\"%s\": %.3f", separator, task_names[i], outcomes[i].figure);
            separator = ", ";
        }
    fputs("}, ", out);
}

} // namespace

const workload bench_workload = [] {
    workload work{};
    work.name = "pools";
    work.purpose = "Explicit pools, memory resources and arenas, each task in a process of its own.";
    work.variants = names.name;
    work.run = run;
    work.extra = extra;
    work.defaults.threads = 1;
    work.defaults.seconds = 0.1;
    return work;
}();
