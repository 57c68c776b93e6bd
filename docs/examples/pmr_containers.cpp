// Standard containers on pools and arenas, by std::pmr: only the resource is new.
#include <poolmalloc.hpp>

#include <cstddef>
#include <cstdio>
#include <memory_resource>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

// Takes any memory resource, as code for std::pmr does.
long squares_sum(std::pmr::memory_resource &memory)
{
    std::pmr::vector<int> numbers(&memory);
    numbers.reserve(100);
    for (int i = 0; i < 50; i++)
        numbers.push_back(i);

    std::pmr::unordered_map<int, std::pmr::string> names(&memory);
    for (int i : numbers)
        names.emplace(i, "the square of this number is " + std::to_string(i * i));

    long sum = 0;
    for (int i : numbers)
        sum += std::stol(std::string(names.at(i).substr(names.at(i).rfind(' '))));
    return sum;
}

} // namespace

int main()
{
    // On the stack as far as 1 KiB goes, then in a growing arena: as std::pmr::monotonic_buffer_resource.
    alignas(std::max_align_t) std::byte buffer[1024];
    poolmalloc::arena_resource within_buffer(buffer, sizeof buffer);
    poolmalloc::arena_resource growing;
    // As std::pmr::unsynchronized_pool_resource, and std::pmr::synchronized_pool_resource.
    poolmalloc::pool_resource one_thread(PM_SHARING_NONE);
    poolmalloc::pool_resource any_threads;

    bool right = true;
    std::pmr::memory_resource *const resources[] = {&within_buffer, &growing, &one_thread, &any_threads};
    for (std::pmr::memory_resource *memory : resources)
        right = squares_sum(*memory) == 40425 && right;

    // The buffer again, and nothing else: 50 numbers in 400 of its bytes.
    within_buffer.release();
    std::pmr::vector<int> numbers(&within_buffer);
    numbers.reserve(100);
    for (int i = 0; i < 50; i++)
        numbers.push_back(i);
    const auto *first = reinterpret_cast<const std::byte *>(numbers.data());
    right = right && first >= buffer && first < buffer + sizeof buffer;
    std::printf("%s\n", right ? "all sums are right" : "a sum is wrong");
    return right ? 0 : 1;
}
