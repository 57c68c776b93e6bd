// All twenty operators: they serve, align, match each other, and fail as the C++ runtime made them fail.
#include <cerrno>
#include <cstdint>
#include <malloc.h>
#include <new>
#include <string>
#include <sys/resource.h>
#include <thread>
#include <vector>

#include "check.h"

namespace {

const std::align_val_t kAlignments[] = {std::align_val_t{16}, std::align_val_t{32}, std::align_val_t{64},
                                        std::align_val_t{512}, std::align_val_t{4096}, std::align_val_t{65536}};
const size_t kSizes[] = {0, 1, 8, 16, 24, 100, 1000, 4096, 32768, 40000, 300000};

void check_block(void *block, size_t size, size_t alignment)
{
    CHECK(block != nullptr);
    CHECKF(reinterpret_cast<uintptr_t>(block) % alignment == 0, "%zu bytes not aligned to %zu", size, alignment);
    CHECK(malloc_usable_size(block) >= size);
    memset(block, 0x5a, size);
}

// Every operator new with every operator delete that may release what it gave.
void plain_pairs(size_t size)
{
    void (*const releases[])(void *, size_t) = {
        [](void *p, size_t) { ::operator delete(p); },
        [](void *p, size_t n) { ::operator delete(p, n); },
        [](void *p, size_t) { ::operator delete(p, std::nothrow); },
    };
    void (*const array_releases[])(void *, size_t) = {
        [](void *p, size_t) { ::operator delete[](p); },
        [](void *p, size_t n) { ::operator delete[](p, n); },
        [](void *p, size_t) { ::operator delete[](p, std::nothrow); },
    };
    for (int i = 0; i < 3; i++) {
        void *blocks[] = {::operator new(size), ::operator new(size, std::nothrow),
                          ::operator new[](size), ::operator new[](size, std::nothrow)};
        for (int j = 0; j < 4; j++) {
            check_block(blocks[j], size, 16);
            (j < 2 ? releases : array_releases)[i](blocks[j], size);
        }
    }
}

void aligned_pairs(size_t size, std::align_val_t alignment)
{
    void (*const releases[])(void *, size_t, std::align_val_t) = {
        [](void *p, size_t, std::align_val_t a) { ::operator delete(p, a); },
        [](void *p, size_t n, std::align_val_t a) { ::operator delete(p, n, a); },
        [](void *p, size_t, std::align_val_t a) { ::operator delete(p, a, std::nothrow); },
    };
    void (*const array_releases[])(void *, size_t, std::align_val_t) = {
        [](void *p, size_t, std::align_val_t a) { ::operator delete[](p, a); },
        [](void *p, size_t n, std::align_val_t a) { ::operator delete[](p, n, a); },
        [](void *p, size_t, std::align_val_t a) { ::operator delete[](p, a, std::nothrow); },
    };
    for (int i = 0; i < 3; i++) {
        void *blocks[] = {::operator new(size, alignment), ::operator new(size, alignment, std::nothrow),
                          ::operator new[](size, alignment), ::operator new[](size, alignment, std::nothrow)};
        for (int j = 0; j < 4; j++) {
            check_block(blocks[j], size, static_cast<size_t>(alignment));
            (j < 2 ? releases : array_releases)[i](blocks[j], size, alignment);
        }
    }
}

void null_is_ignored()
{
    ::operator delete(opaque_pointer(nullptr));
    ::operator delete(opaque_pointer(nullptr), size_t{8});
    ::operator delete[](opaque_pointer(nullptr), std::nothrow);
    ::operator delete(opaque_pointer(nullptr), std::align_val_t{64});
    ::operator delete[](opaque_pointer(nullptr), size_t{8}, std::align_val_t{64});
}

int handler_calls;

void handler_gives_up()
{
    if (++handler_calls == 3)
        std::set_new_handler(nullptr);
}

struct Refused {};
void handler_throws() { throw Refused{}; }

template <class Call> void fails_with_bad_alloc(Call call, const char *what)
{
    handler_calls = 0;
    std::set_new_handler(handler_gives_up);
    bool thrown = false;
    try {
        call();
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECKF(thrown, "%s did not throw bad_alloc", what);
    CHECKF(handler_calls == 3, "%s called the new_handler %d times, not 3", what, handler_calls);
    std::set_new_handler(handler_throws);
    thrown = false;
    try {
        call();
    } catch (const Refused &) {
        thrown = true;
    }
    CHECKF(thrown, "%s did not let the handler's exception through", what);
    std::set_new_handler(nullptr);
}

template <class Call> void fails_with_null(Call call, const char *what)
{
    handler_calls = 0;
    std::set_new_handler(handler_gives_up);
    CHECKF(call() == nullptr, "%s gave a block", what);
    CHECKF(handler_calls == 3, "%s called the new_handler %d times, not 3", what, handler_calls);
}

void failures()
{
    const size_t huge = opaque(PTRDIFF_MAX);
    const std::align_val_t wide{128};
    fails_with_bad_alloc([&] { return ::operator new(huge); }, "new");
    fails_with_bad_alloc([&] { return ::operator new[](huge); }, "new[]");
    fails_with_bad_alloc([&] { return ::operator new(huge - 4096, wide); }, "aligned new");
    fails_with_bad_alloc([&] { return ::operator new[](huge - 4096, wide); }, "aligned new[]");
    fails_with_null([&] { return ::operator new(huge, std::nothrow); }, "nothrow new");
    fails_with_null([&] { return ::operator new[](huge, std::nothrow); }, "nothrow new[]");
    fails_with_null([&] { return ::operator new(huge - 4096, wide, std::nothrow); }, "aligned nothrow new");
    fails_with_null([&] { return ::operator new[](huge - 4096, wide, std::nothrow); }, "aligned nothrow new[]");
}

// What a handler made room for is a block like any other: delete takes it.
constexpr size_t kRoom = size_t{100} << 20;
void *held[64];
size_t held_count;

void handler_makes_room()
{
    handler_calls++;
    if (held_count == 0)
        std::set_new_handler(nullptr);
    while (held_count > 0)
        std::free(held[--held_count]);
}

void memory_fill()
{
    for (held_count = 0; held_count < 64 && (held[held_count] = std::malloc(kRoom)) != nullptr; held_count++)
        ;
    handler_calls = 0;
    std::set_new_handler(handler_makes_room);
}

template <class New, class Delete> void room_is_used(New make, Delete release)
{
    memory_fill();
    if (held_count == sizeof held / sizeof *held) { // an emulator without the limit
        handler_makes_room();
        return;
    }
    void *p = make();
    CHECK(p != nullptr && handler_calls == 1);
    release(p);
}

void handlers_make_room()
{
    rlimit all, most;
    CHECK(getrlimit(RLIMIT_AS, &all) == 0);
    most = all;
    most.rlim_cur = size_t{1} << 30;
    if (setrlimit(RLIMIT_AS, &most) != 0)
        return;
    const size_t n = kRoom;
    const std::align_val_t wide{128};
    room_is_used([&] { return ::operator new(n); }, [&](void *p) { ::operator delete(p, n); });
    room_is_used([&] { return ::operator new[](n); }, [](void *p) { ::operator delete[](p); });
    room_is_used([&] { return ::operator new(n, wide); }, [&](void *p) { ::operator delete(p, n, wide); });
    room_is_used([&] { return ::operator new[](n, wide); }, [&](void *p) { ::operator delete[](p, wide); });
    room_is_used([&] { return ::operator new(n, std::nothrow); }, [](void *p) { ::operator delete(p); });
    room_is_used([&] { return ::operator new[](n, wide, std::nothrow); }, [&](void *p) { ::operator delete[](p, wide); });
    std::set_new_handler(nullptr);
    CHECK(setrlimit(RLIMIT_AS, &all) == 0);
}

struct alignas(256) Wide {
    char bytes[256];
};

// A handler that throws out of a failing operator must unwind through locals on the way.
void unwinding_runs_destructors()
{
    static int destroyed;
    struct Witness {
        ~Witness() { destroyed++; }
    };
    try {
        Witness witness;
        check_block(::operator new(opaque(PTRDIFF_MAX)), 1, 16);
    } catch (const std::bad_alloc &) {
        destroyed += 10;
    }
    CHECK(destroyed == 11);
}

void containers()
{
    std::vector<std::string> strings;
    for (int i = 0; i < 20000; i++)
        strings.push_back(std::string(static_cast<size_t>(i % 300), 'x'));
    std::vector<Wide> wides(100);
    CHECK(reinterpret_cast<uintptr_t>(wides.data()) % 256 == 0);
    for (int i = 0; i < 20000; i++)
        CHECK(strings[static_cast<size_t>(i)].size() == static_cast<size_t>(i % 300));
}

} // namespace

int main()
{
    for (size_t size : kSizes) {
        plain_pairs(size);
        for (std::align_val_t alignment : kAlignments)
            aligned_pairs(size, alignment);
    }
    null_is_ignored();
    failures();
    unwinding_runs_destructors();
    containers();
    std::thread(failures).join();
    handlers_make_room();
    return 0;
}
