// A plugin with a C++ runtime of its own inside: what fails must be told by that one.
#include <cstddef>
#include <new>

namespace {
int asked;
std::size_t volatile huge = std::size_t(1) << 46;

void handler()
{
    asked++;
    throw std::bad_alloc();
}

template <class F> bool throws(F f)
{
    try {
        f();
        return false;
    } catch (const std::bad_alloc &) {
        return true;
    }
}
} // namespace

/* The number of the first expectation that does not hold, or 0. */
extern "C" int plugin_fails()
{
    const std::align_val_t wide{64};
    if (::operator new(huge, std::nothrow) || ::operator new[](huge, std::nothrow))
        return 1;
    if (::operator new(huge, wide, std::nothrow) || ::operator new[](huge, wide, std::nothrow))
        return 2;
    if (!throws([] { return ::operator new(huge); }) || !throws([] { return ::operator new[](huge); }))
        return 3;
    if (!throws([=] { return ::operator new(huge, wide); }) || !throws([=] { return ::operator new[](huge, wide); }))
        return 4;
    std::set_new_handler(handler);
    if (!throws([] { return ::operator new(huge); }) || ::operator new(huge, std::nothrow) || asked != 2)
        return 5;
    return 0;
}
