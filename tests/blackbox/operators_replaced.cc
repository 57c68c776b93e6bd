// A program that replaces only the plain operators, and puts a header in front of each block. The C++ standard
// lets it: the default new[], nothrow and sized forms must call the replaced ones, or headers and blocks mix.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "check.h"

namespace {
const uint64_t kMagic = 0x706f6f6c6d616c6cu;
struct Header {
    uint64_t magic, padding;
};
int live;
} // namespace

__attribute__((noinline)) void *operator new(size_t size)
{
    auto *header = static_cast<Header *>(std::malloc(size + sizeof(Header)));
    if (header == nullptr)
        throw std::bad_alloc();
    header->magic = kMagic;
    live++;
    return header + 1;
}

// Sized and array deletes are left to the runtime on purpose.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wsized-deallocation"
#endif
__attribute__((noinline)) void operator delete(void *block) noexcept
{
    if (block == nullptr)
        return;
    Header *header = static_cast<Header *>(opaque_pointer(block)) - 1;
    CHECKF(header->magic == kMagic, "a block that the program's operator new never made came to its operator delete");
    header->magic = 0;
    live--;
    std::free(header);
}

int main()
{
    std::vector<std::unique_ptr<int[]>> arrays;
    for (int i = 1; i < 1000; i++)
        arrays.emplace_back(new int[static_cast<size_t>(i)]);
    CHECKF(live >= 999, "new[] did not call the program's operator new (%d live)", live);
    arrays.clear();
    for (size_t size = 1; size < 3000; size += 7) {
        ::operator delete(::operator new(size, std::nothrow));
        ::operator delete[](::operator new[](size, std::nothrow), size);
        ::operator delete(::operator new(size), size);
    }
    std::vector<std::pair<int, int>> pairs(5000);
    for (int i = 0; i < 5000; i++)
        pairs[static_cast<size_t>(i)] = {i * 7919 % 100, i};
    std::stable_sort(pairs.begin(), pairs.end()); // its buffer: nothrow new, plain delete
    CHECK(std::is_sorted(pairs.begin(), pairs.end()));
    return 0;
}
