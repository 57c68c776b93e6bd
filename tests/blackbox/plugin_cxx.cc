// A C++ plugin of a C host: its failing operator new must throw here, though the host knows no C++ runtime.
#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "check.h"

static int handled;

static void handler()
{
    handled++;
    std::set_new_handler(nullptr);
}

// The number of failures that arrived as they should.
extern "C" int plugin_fail()
{
    int good = 0;
    std::set_new_handler(handler);
    try {
        ::operator delete(::operator new(opaque(PTRDIFF_MAX)));
    } catch (const std::bad_alloc &) {
        good++;
    }
    try {
        ::operator delete[](::operator new[](opaque(PTRDIFF_MAX) - 9999, std::align_val_t{64}), std::align_val_t{64});
    } catch (const std::bad_alloc &) {
        good++;
    }
    good += ::operator new(opaque(PTRDIFF_MAX), std::nothrow) == nullptr;
    return good + handled;
}

extern "C" size_t plugin_work()
{
    std::vector<std::string> words;
    for (int i = 0; i < 10000; i++)
        words.emplace_back(static_cast<size_t>(i % 200), 'p');
    return words.size();
}
