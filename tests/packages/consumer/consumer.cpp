// A user's program in C++.
#include <poolmalloc.hpp>

#include <cstdio>
#include <list>

int main()
{
    poolmalloc::object_pool<int> numbers;
    auto three = numbers.make(3);
    std::list<int, poolmalloc::allocator<int>> list{0, *three};
    std::printf("%s %d\n", pm_version(), list.back());
    return 0;
}
