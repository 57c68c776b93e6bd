// A plugin with pools of its own: linked with the archive. Its host loads it many times, or several of it at once.
#include <poolmalloc.hpp>

#include <cstring>
#include <list>
#include <thread>

#include "check.h"

using numbers = std::list<long, poolmalloc::allocator<long>>;

// Pools and an arena, some of which are still there at the end; also from threads of its own.
extern "C" int plugin_use()
{
    auto *left = new poolmalloc::pool(64);
    for (int i = 0; i < 3000; i++)
        std::memset(left->allocate(), 1, 64);
    poolmalloc::arena arena;
    std::memset(arena.allocate(300000), 1, 300000);
    std::thread([&] { left->deallocate(left->allocate()); }).join();
    pm_pool *const pool = left->release();
    delete left;
    return pm_pool_of(pool) == nullptr && pm_pool_alloc(pool) != nullptr;
}

static std::atomic<bool> go_on{true}, begun{false};

// A thread that uses pools until the process is gone.
extern "C" void plugin_run_on()
{
    std::thread([] {
        while (go_on) {
            poolmalloc::pool pool(100);
            pool.deallocate(pool.allocate());
            begun = true;
        }
    }).detach();
    while (!begun)
        std::this_thread::yield();
}

extern "C" void *plugin_fill(long n)
{
    auto *list = new numbers;
    for (long i = 0; i < n; i++)
        list->push_back(i);
    return list;
}

// Of a list that another plugin may have filled; half of the nodes come anew.
extern "C" long plugin_empty(void *filled)
{
    auto *list = static_cast<numbers *>(filled);
    long sum = 0;
    for (long x : *list)
        sum += x;
    const std::size_t n = list->size();
    while (list->size() > n / 2)
        list->pop_front();
    while (list->size() < n)
        list->push_back(0);
    delete list;
    return sum;
}
