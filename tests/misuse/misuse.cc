// misuse.cc: Misuse by way of C++: new and delete that do not belong together, sizes that are not so, objects that are gone.
#include "cases.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace {

char *made(std::size_t size, bool array = false)
{
    void *p = array ? ::operator new[](size) : ::operator new(size);
    return opaque(std::memset(p, 0x5a, size));
}

bool delete_of_malloc(std::size_t size)
{
    ::operator delete(opaque(std::malloc(size)));
    return true;
}

bool delete_array_of_malloc(std::size_t size)
{
    ::operator delete[](opaque(std::malloc(size)));
    return true;
}

bool free_of_new(std::size_t size)
{
    std::free(made(size));
    return true;
}

bool free_of_new_array(std::size_t size)
{
    std::free(made(size, true));
    return true;
}

bool realloc_of_new(std::size_t size) { return std::realloc(made(size), 2 * size) != nullptr; }

bool delete_array_of_new(std::size_t size)
{
    ::operator delete[](made(size));
    return true;
}

bool delete_of_new_array(std::size_t size)
{
    ::operator delete(made(size, true));
    return true;
}

bool delete_with_less(std::size_t size)
{
    ::operator delete(made(size), size / 2);
    return true;
}

bool delete_with_more(std::size_t size)
{
    ::operator delete(made(size), 2 * size);
    return true;
}

bool delete_with_one_more(std::size_t size)
{
    ::operator delete(made(size), size + 1);
    return true;
}

bool delete_array_with_less(std::size_t size)
{
    ::operator delete[](made(size, true), size - 1);
    return true;
}

bool delete_twice(std::size_t size)
{
    char *p = made(size);
    ::operator delete(p);
    ::operator delete(opaque(p));
    return true;
}

bool delete_array_twice(std::size_t size)
{
    char *p = made(size, true);
    ::operator delete[](p);
    ::operator delete[](opaque(p));
    return true;
}

bool two_owners(std::size_t size)
{
    std::unique_ptr<char[]> a(new char[size]), b(opaque(a.get()));
    return true;
}

bool new_past_end(std::size_t size)
{
    char *p = made(size);
    *opaque(p + size) = 1;
    ::operator delete(p);
    return true;
}

bool new_aligned_past_end(std::size_t size)
{
    char *p = opaque(::operator new(size, std::align_val_t(64)));
    *opaque(p + size) = 1;
    ::operator delete(p, std::align_val_t(64));
    return true;
}

bool vector_past_end(std::size_t size)
{
    std::vector<char> v(size);
    *opaque(v.data() + size) = 1;
    v.shrink_to_fit();
    return true;
}

bool string_before_begin(std::size_t size)
{
    std::string s(size + 24, 'A');
    char *at = opaque(&s[0] - 1);
    *at = *at == 1 ? 2 : 1; /* never what lay there */
    return true;
}

constexpr std::align_val_t wide{64};

bool delete_aligned_with_less(std::size_t size)
{
    ::operator delete(opaque(::operator new(size, wide)), size - 1, wide);
    return true;
}

bool delete_array_of_new_aligned(std::size_t size)
{
    ::operator delete[](opaque(::operator new(size, wide)), wide);
    return true;
}

bool free_of_new_aligned(std::size_t size)
{
    std::free(opaque(::operator new[](size, wide)));
    return true;
}

bool delete_of_aligned_alloc(std::size_t size)
{
    ::operator delete(opaque(std::aligned_alloc(64, size)), wide);
    return true;
}

// An alignment, and a size, that new did not name, or named otherwise.
bool delete_of_new_aligned(std::size_t size)
{
    ::operator delete(opaque(::operator new(size, wide)));
    return true;
}

bool delete_array_of_new_array_aligned(std::size_t size)
{
    ::operator delete[](opaque(::operator new[](size, wide)));
    return true;
}

bool delete_sized_of_new_aligned(std::size_t size)
{
    ::operator delete(opaque(::operator new(size, wide)), size);
    return true;
}

bool delete_nothrow_of_new_aligned(std::size_t size)
{
    ::operator delete(opaque(::operator new(size, wide, std::nothrow)), std::nothrow);
    return true;
}

bool delete_of_new_aligned_as_usual(std::size_t size)
{
    ::operator delete(opaque(::operator new(size, std::align_val_t(16))));
    return true;
}

bool delete_aligned_of_new(std::size_t size)
{
    ::operator delete(made(size), wide);
    return true;
}

bool delete_array_aligned_of_new_array(std::size_t size)
{
    ::operator delete[](made(size, true), wide);
    return true;
}

bool delete_with_less_alignment(std::size_t size)
{
    ::operator delete(opaque(::operator new(size, wide)), std::align_val_t(32));
    return true;
}

bool delete_with_more_alignment(std::size_t size)
{
    ::operator delete(opaque(::operator new(size, std::align_val_t(4096))), std::align_val_t(8192));
    return true;
}

bool delete_array_with_other_alignment(std::size_t size)
{
    ::operator delete[](opaque(::operator new[](size, wide)), std::align_val_t(128));
    return true;
}

bool delete_sized_with_other_alignment(std::size_t size)
{
    ::operator delete(opaque(::operator new(size, wide)), size, std::align_val_t(32));
    return true;
}

bool delete_array_sized_with_other_alignment(std::size_t size)
{
    ::operator delete[](opaque(::operator new[](size, wide)), size, std::align_val_t(32));
    return true;
}

bool delete_aligned_with_more(std::size_t size)
{
    ::operator delete(opaque(::operator new(size, wide)), size + 1, wide);
    return true;
}

bool delete_array_aligned_with_less(std::size_t size)
{
    ::operator delete[](opaque(::operator new[](size, wide)), size - 1, wide);
    return true;
}

struct plain_base {
    char c;
};
struct alignas(64) wide_child : plain_base {
    char more[64];
};

// Through a base that has no virtual destructor: another size, and no alignment.
bool delete_through_base(std::size_t)
{
    plain_base *p = reinterpret_cast<plain_base *>(opaque(static_cast<plain_base *>(new wide_child)));
    delete p;
    return true;
}

bool delete_aligned_twice(std::size_t size)
{
    void *p = ::operator new(size, wide);
    ::operator delete(p, wide);
    ::operator delete(opaque(p), wide);
    return true;
}

bool new_nothrow_past_end(std::size_t size)
{
    auto *p = opaque(::operator new[](size, std::nothrow));
    *opaque(p + size) = 1;
    ::operator delete[](p);
    return true;
}

bool two_owners_shared(std::size_t size)
{
    std::shared_ptr<char[]> a(new char[size]), b(opaque(a.get()));
    return true;
}

struct alignas(8) shape {
    virtual int area() { return 1; }
    virtual ~shape() = default;
};
struct square : shape {
    int area() override { return 2; }
};

// The function of an object that is gone and whose place another thing has taken.
bool virtual_call_after_delete(std::size_t size)
{
    shape *s = new square;
    char *raw = opaque(s);
    ::operator delete(static_cast<void *>(raw));
    auto *other = new char[sizeof(square)];
    std::memset(opaque(other), 0, size < sizeof(square) ? size : sizeof(square));
    return reinterpret_cast<shape *>(opaque(raw))->area() == 2;
}

bool iterator_after_growth(std::size_t size)
{
    std::vector<char> v(size, 'A');
    char *first = opaque(v.data());
    v.resize(4 * size);
    *first = 'B';
    v.assign(4 * size, 'C');
    v.shrink_to_fit();
    std::vector<char> w(size, 'D');
    return opaque(w.data()) != nullptr;
}

constexpr const char *KIND = "SIGABRT made by";
constexpr const char *SIZED = "SIGABRT given back as";
constexpr const char *ALIGNED = "SIGABRT given back with an alignment of";
constexpr const char *UNALIGNED = "SIGABRT given back without its alignment";
constexpr const char *TWICE = "SIGABRT double free";
constexpr const char *PAST = "SIGABRT written past its end";
constexpr const char *FAULT = "SIGSEGV poolmalloc: access";

const misuse cases[] = {
    {"delete_of_malloc", delete_of_malloc, KIND, KIND, false},
    {"delete_array_of_malloc", delete_array_of_malloc, KIND, KIND, false},
    {"free_of_new", free_of_new, KIND, KIND, false},
    {"free_of_new_array", free_of_new_array, KIND, KIND, false},
    {"realloc_of_new", realloc_of_new, KIND, KIND, false},
    {"delete_array_of_new", delete_array_of_new, KIND, KIND, false},
    {"delete_of_new_array", delete_of_new_array, KIND, KIND, false},
    {"delete_with_less", delete_with_less, SIZED, SIZED, false},
    {"delete_with_more", delete_with_more, SIZED, SIZED, false},
    {"delete_with_one_more", delete_with_one_more, SIZED, SIZED, false},
    {"delete_array_with_less", delete_array_with_less, SIZED, SIZED, false},
    {"delete_twice", delete_twice, TWICE, TWICE, false},
    {"delete_array_twice", delete_array_twice, TWICE, TWICE, false},
    {"two_owners", two_owners, TWICE, TWICE, false},
    {"delete_aligned_with_less", delete_aligned_with_less, SIZED, SIZED, false},
    {"delete_array_of_new_aligned", delete_array_of_new_aligned, KIND, KIND, false},
    {"free_of_new_aligned", free_of_new_aligned, KIND, KIND, false},
    {"delete_of_aligned_alloc", delete_of_aligned_alloc, KIND, KIND, false},
    {"delete_of_new_aligned", delete_of_new_aligned, UNALIGNED, UNALIGNED, false},
    {"delete_array_of_new_array_aligned", delete_array_of_new_array_aligned, UNALIGNED, UNALIGNED, false},
    {"delete_sized_of_new_aligned", delete_sized_of_new_aligned, UNALIGNED, UNALIGNED, false},
    {"delete_nothrow_of_new_aligned", delete_nothrow_of_new_aligned, UNALIGNED, UNALIGNED, false},
    {"delete_of_new_aligned_as_usual", delete_of_new_aligned_as_usual, UNALIGNED, UNALIGNED, false},
    {"delete_aligned_of_new", delete_aligned_of_new, ALIGNED, ALIGNED, false},
    {"delete_array_aligned_of_new_array", delete_array_aligned_of_new_array, ALIGNED, ALIGNED, false},
    {"delete_with_less_alignment", delete_with_less_alignment, ALIGNED, ALIGNED, false},
    {"delete_with_more_alignment", delete_with_more_alignment, ALIGNED, ALIGNED, false},
    {"delete_array_with_other_alignment", delete_array_with_other_alignment, ALIGNED, ALIGNED, false},
    {"delete_sized_with_other_alignment", delete_sized_with_other_alignment, ALIGNED, ALIGNED, false},
    {"delete_array_sized_with_other_alignment", delete_array_sized_with_other_alignment, ALIGNED, ALIGNED, false},
    {"delete_aligned_with_more", delete_aligned_with_more, SIZED, SIZED, false},
    {"delete_array_aligned_with_less", delete_array_aligned_with_less, SIZED, SIZED, false},
    {"delete_through_base", delete_through_base, UNALIGNED, UNALIGNED, true},
    {"delete_aligned_twice", delete_aligned_twice, TWICE, TWICE, false},
    {"new_nothrow_past_end", new_nothrow_past_end, PAST, FAULT, false},
    {"two_owners_shared", two_owners_shared, TWICE, TWICE, false},
    {"new_past_end", new_past_end, PAST, FAULT, false},
    {"new_aligned_past_end", new_aligned_past_end, PAST, FAULT, false},
    {"vector_past_end", vector_past_end, PAST, FAULT, false},
    {"string_before_begin", string_before_begin, "SIG", "SIG", false},
    {"virtual_call_after_delete", virtual_call_after_delete, "SIGSEGV", "SIGSEGV", true},
    {"iterator_after_growth", iterator_after_growth, "SIGABRT written to after it was freed", FAULT, false},
};

} // namespace

int main(int argc, char **argv) { return misuse_main(cases, sizeof cases / sizeof *cases, argc, argv); }
