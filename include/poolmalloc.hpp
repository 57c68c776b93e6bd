// poolmalloc.hpp: pools and arenas for C++17, over poolmalloc.h. Header only; MIT license.
//
//   pool, arena        own a pm_pool, a pm_arena; move-only
//   object_pool<T>     make(arguments...) gives a unique_ptr, whose deleter gives the block back
//   allocator<T>       for classic containers: single objects from pools that the whole process shares
//   pool_resource      a std::pmr::memory_resource; stands in for (un)synchronized_pool_resource
//   arena_resource     the same for monotonic_buffer_resource
//
// What fails for want of memory throws std::bad_alloc, and a pool that cannot be as asked for std::invalid_argument; built
// with -fno-exceptions both abort. RTTI is not used. Threads: as poolmalloc.h says of the pool or arena underneath.
#ifndef POOLMALLOC_HPP
#define POOLMALLOC_HPP

#include <poolmalloc.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <new>
#include <stdexcept>
#include <type_traits>
#include <utility>

// Off the short ways: inlined there, it would make these save registers.
#define POOLMALLOC_ASIDE __attribute__((noinline, cold))

namespace poolmalloc {

namespace detail {

[[noreturn]] POOLMALLOC_ASIDE inline void fail_memory()
{
#ifdef __cpp_exceptions
    throw std::bad_alloc();
#else
    std::abort();
#endif
}

[[noreturn]] POOLMALLOC_ASIDE inline void fail_creation(int error)
{
#ifdef __cpp_exceptions
    if (error == EINVAL)
        throw std::invalid_argument("poolmalloc: no such pool or arena can be");
#else
    static_cast<void>(error);
#endif
    fail_memory();
}

template <class P>
P *created(P *made)
{
    if (!made)
        fail_creation(errno);
    return made;
}

inline void *given(void *block)
{
    if (!block)
        fail_memory();
    return block;
}

struct destroy {
    void operator()(pm_pool *p) const noexcept { pm_pool_destroy(p); }
    void operator()(pm_arena *a) const noexcept { pm_arena_destroy(a); }
};

// Gives a block back to its pool.
struct give_back {
    pm_pool *from = nullptr;
    void operator()(void *block) const noexcept { pm_pool_free(from, block); }
};

inline pm_pool_options options_for(std::size_t size, std::size_t align, pm_sharing sharing, const char *name) noexcept
{
    pm_pool_options wanted{};
    wanted.struct_size = sizeof wanted;
    wanted.name = name;
    wanted.block_size = size;
    wanted.block_align = align;
    wanted.sharing = sharing;
    return wanted;
}

// What a pool of T asks for: 8 packs the blocks of a 40-byte T on 40 bytes.
template <class T>
constexpr std::size_t block_align_of = alignof(T) < 8 ? 8 : alignof(T);

template <class T>
constexpr bool fits_pool = sizeof(T) <= 65536 && alignof(T) <= 4096;

// The next `size` bytes of what lies between at and end, or null. No sum that could wrap around.
inline void *bump(pm_arena_room &room, std::size_t size, std::size_t align) noexcept
{
    const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(room.at), end = reinterpret_cast<std::uintptr_t>(room.end);
    const std::size_t pad = (0 - at) & (align - 1);
    if (__builtin_expect(size > end - at || pad > end - at - size, 0))
        return nullptr;
    char *const block = room.at + pad;
    room.at = block + size;
    return block;
}

inline pm_arena_room &room_of(pm_arena *arena) noexcept { return *reinterpret_cast<pm_arena_room *>(arena); }

} // namespace detail

// ---- owners ----

// Owns a pm_pool, or, when default-made or moved from, none.
class pool
{
public:
    pool() noexcept = default;
    explicit pool(const pm_pool_options &wanted) : owned(detail::created(pm_pool_create(&wanted))) {}
    explicit pool(std::size_t block_size, pm_sharing sharing = PM_SHARING_THREADS)
        : pool(detail::options_for(block_size, 0, sharing, nullptr))
    {
    }

    [[nodiscard]] void *allocate() { return detail::given(try_allocate()); }
    [[nodiscard]] void *try_allocate() noexcept { return pm_pool_alloc(get()); } // null instead of an exception
    void deallocate(void *block) noexcept { pm_pool_free(get(), block); }
    void reset() noexcept { pm_pool_reset(get()); }
    std::size_t trim() noexcept { return pm_pool_trim(get()); }
    bool owns(const void *p) const noexcept { return pm_pool_owns(get(), p); }
    pm_pool_stats stats() const noexcept
    {
        pm_pool_stats stats{};
        stats.struct_size = sizeof stats;
        pm_pool_stats_get(get(), &stats);
        return stats;
    }

    pm_pool *get() const noexcept { return owned.get(); }
    pm_pool *release() noexcept { return owned.release(); } // the caller's, to destroy
    explicit operator bool() const noexcept { return get() != nullptr; }

private:
    std::unique_ptr<pm_pool, detail::destroy> owned;
};

// Owns a pm_arena: a growing one, or one within a buffer, which it never outgrows; moved from, none, and then of no use.
class arena
{
public:
    explicit arena(std::size_t bytes = 0) : arena(nullptr, bytes) {}
    arena(void *buffer, std::size_t bytes) : owned(detail::created(pm_arena_create(buffer, bytes))) {}

    [[nodiscard]] void *allocate(std::size_t size, std::size_t align = alignof(std::max_align_t))
    {
        return detail::given(try_allocate(size, align));
    }
    [[nodiscard]] void *try_allocate(std::size_t size, std::size_t align = alignof(std::max_align_t)) noexcept
    {
        void *const block = detail::bump(detail::room_of(get()), size, align);
        return block ? block : pm_arena_alloc(get(), size, align);
    }
    // Its destructor never runs.
    template <class T, class... Arguments>
    T *make(Arguments &&...arguments)
    {
        static_assert(std::is_trivially_destructible_v<T>, "an arena calls no destructors");
        return ::new (allocate(sizeof(T), alignof(T))) T(std::forward<Arguments>(arguments)...);
    }
    pm_arena_mark save() const noexcept { return pm_arena_save(get()); }
    void rewind(pm_arena_mark mark) noexcept { pm_arena_rewind(get(), mark); }
    void reset() noexcept { pm_arena_reset(get()); }

    pm_arena *get() const noexcept { return owned.get(); }
    pm_arena *release() noexcept { return owned.release(); } // the caller's, to destroy
    explicit operator bool() const noexcept { return get() != nullptr; }

private:
    std::unique_ptr<pm_arena, detail::destroy> owned;
};

// ---- objects ----

// Objects of one type. What make() gives must be gone before the object_pool is: its end frees the memory of objects that
// are still there, and runs no destructors.
template <class T>
class object_pool
{
    static_assert(detail::fits_pool<T>, "blocks have at most 64 KiB, and alignments of at most 4096");

public:
    struct deleter : detail::give_back {
        void operator()(T *object) const noexcept
        {
            object->~T();
            detail::give_back::operator()(object);
        }
    };
    using pointer = std::unique_ptr<T, deleter>;

    explicit object_pool(std::size_t initial_blocks = 0, pm_sharing sharing = PM_SHARING_THREADS)
        : blocks(options_for(initial_blocks, sharing))
    {
    }

    // When T's constructor throws, the block goes back.
    template <class... Arguments>
    [[nodiscard]] pointer make(Arguments &&...arguments)
    {
        std::unique_ptr<void, detail::give_back> block(blocks.allocate(), {blocks.get()});
        T *const object = ::new (block.get()) T(std::forward<Arguments>(arguments)...);
        block.release();
        return pointer(object, deleter{{blocks.get()}});
    }

    pm_pool_stats stats() const noexcept { return blocks.stats(); }
    std::size_t trim() noexcept { return blocks.trim(); }
    pm_pool *get() const noexcept { return blocks.get(); }

private:
    static pm_pool_options options_for(std::size_t initial_blocks, pm_sharing sharing) noexcept
    {
        pm_pool_options wanted = detail::options_for(sizeof(T), detail::block_align_of<T>, sharing, "object_pool");
        wanted.initial_blocks = initial_blocks;
        return wanted;
    }

    pool blocks;
};

// ---- classic containers ----

namespace detail {

// One pool for all types of a size and alignment in the process. Never destroyed: containers may outlive any static object.
// Visible from every shared object, so that all of them mean the same pool.
template <std::size_t Size, std::size_t Align>
__attribute__((visibility("default"))) inline pm_pool *shared_pool()
{
    static pm_pool *const made = [] {
        const pm_pool_options wanted = options_for(Size, Align, PM_SHARING_THREADS, "allocator");
        return created(pm_pool_create(&wanted));
    }();
    return made;
}

} // namespace detail

// Nodes, one at a time, from shared pools; arrays (n > 1), and what is larger than a block can be, from operator new. All
// allocators are equal. For list, map, set, unordered_map and the like; a vector gains nothing.
template <class T>
class allocator
{
public:
    using value_type = T;
    using is_always_equal = std::true_type;
    using propagate_on_container_move_assignment = std::true_type;

    allocator() noexcept = default;
    template <class U>
    allocator(const allocator<U> &) noexcept
    {
    }

    [[nodiscard]] T *allocate(std::size_t n)
    {
        if constexpr (detail::fits_pool<T>)
            if (n == 1)
                return static_cast<T *>(detail::given(pm_pool_alloc(shared())));
        return std::allocator<T>().allocate(n);
    }
    void deallocate(T *p, std::size_t n) noexcept
    {
        if constexpr (detail::fits_pool<T>)
            if (n == 1)
                return pm_pool_free(shared(), p);
        std::allocator<T>().deallocate(p, n);
    }

private:
    // The size as rounded: types that differ within the rounding share a pool.
    static pm_pool *shared()
    {
        constexpr std::size_t align = detail::block_align_of<T>, size = sizeof(T) < 16 ? 16 : sizeof(T);
        return detail::shared_pool<(size + align - 1) & ~(align - 1), align>();
    }
};

template <class T, class U>
bool operator==(const allocator<T> &, const allocator<U> &) noexcept
{
    return true;
}
template <class T, class U>
bool operator!=(const allocator<T> &, const allocator<U> &) noexcept
{
    return false;
}

// ---- std::pmr ----

namespace detail {

// The block sizes of pool_resource: multiples of 16 to 128, then four steps a doubling, to 32 KiB. So every multiple of a
// power of two that is not itself a block size leads to one that is a multiple of it too: aligned requests need no pools of
// their own.
constexpr std::size_t largest_block = 32768, block_sizes = 40;

constexpr std::size_t block_size_of(std::size_t number)
{
    return number < 8 ? 16 * (number + 1) : (std::size_t(32) << ((number - 8) / 4)) * (5 + (number - 8) % 4);
}
static_assert(block_size_of(7) == 128 && block_size_of(8) == 160 && block_size_of(block_sizes - 1) == largest_block);

// Block size number for each multiple of 16.
constexpr std::array<std::uint8_t, largest_block / 16 + 1> numbers_make()
{
    std::array<std::uint8_t, largest_block / 16 + 1> table{};
    std::uint8_t number = 0;
    for (std::size_t i = 0; i < table.size(); i++) {
        if (16 * i > block_size_of(number))
            number++;
        table[i] = number;
    }
    return table;
}
inline constexpr std::array<std::uint8_t, largest_block / 16 + 1> numbers = numbers_make();

// The largest power of two that divides a block size, up to what pools align to.
constexpr std::size_t natural_align(std::size_t size)
{
    const std::size_t lowest = size & (0 - size);
    return lowest < 4096 ? lowest : 4096;
}

// How many free blocks a NONE resource keeps at hand: 64 KiB of each size, 1024 at most. (unsynchronized_pool_resource keeps
// all of them.)
constexpr std::size_t at_hand(std::size_t number)
{
    const std::size_t blocks = 65536 / block_size_of(number);
    return blocks > 1024 ? 1024 : blocks;
}

// A request beyond the pools: this stands in front of it, so that release() finds it, and deallocate() need not search.
struct large_block {
    large_block *next, *previous; // a ring through pool_resource::large
    std::size_t bytes, align;     // of the whole, this and all; as asked of the upstream resource
};

} // namespace detail

// Requests up to 32 KiB come from one pool for each of 40 block sizes, made at its first use; larger ones, and those aligned
// beyond 4096, from the upstream resource. THREADS and LOCKED serve any threads (as synchronized_pool_resource does), NONE one
// at a time (as unsynchronized_pool_resource). Blocks must not be used after release() or the end of the resource.
class pool_resource : public std::pmr::memory_resource
{
public:
    explicit pool_resource(pm_sharing sharing = PM_SHARING_THREADS,
                           std::pmr::memory_resource *upstream = std::pmr::new_delete_resource()) noexcept
        : above(upstream), mode(sharing)
    {
        if (mode == PM_SHARING_NONE)
            for (std::size_t number = 0; number < detail::block_sizes; number++)
                slots[number].room = detail::at_hand(number);
    }
    pool_resource(const pool_resource &) = delete;
    pool_resource &operator=(const pool_resource &) = delete;
    ~pool_resource() override { release(); }

    // Gives everything back, whether it was deallocated or not. No other thread may be using the resource.
    void release() noexcept
    {
        for (slot &s : slots)
            slot_end(s);
        while (large.next != &large)
            large_end(large.next);
    }

    std::pmr::memory_resource *upstream_resource() const noexcept { return above; }
    pm_sharing sharing() const noexcept { return mode; }

protected:
    void *do_allocate(std::size_t bytes, std::size_t align) override
    {
        if (__builtin_expect(bytes > detail::largest_block || align > 16, 0))
            return allocate_unusual(bytes, align);
        return slot_take(detail::numbers[(bytes + 15) / 16]);
    }

    void do_deallocate(void *block, std::size_t bytes, std::size_t align) override
    {
        if (__builtin_expect(bytes > detail::largest_block || align > 16, 0))
            return deallocate_unusual(block, bytes, align);
        slot_give(slots[detail::numbers[(bytes + 15) / 16]], block);
    }

    bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override { return this == &other; }

private:
    struct link {
        link *next;
    };
    // A pool, and, in front of a NONE one, free blocks at hand. Of the others free is always null and room 0.
    struct slot {
        std::atomic<pm_pool *> pool{nullptr}; // null: not made yet
        link *free = nullptr;
        std::size_t room = 0; // for so many more blocks
    };

    void *slot_take(std::size_t number)
    {
        slot &s = slots[number];
        if (link *const first = s.free) {
            s.free = first->next;
            s.room++;
            return first;
        }
        pm_pool *const p = s.pool.load(std::memory_order_acquire); // partner: pool_make
        return __builtin_expect(p != nullptr, 1) ? detail::given(pm_pool_alloc(p)) : draw_first(number);
    }

    // Not noexcept: that would take the tail out of this tail call.
    static void slot_give(slot &s, void *block)
    {
        if (s.room == 0) // relaxed: whoever has a block of the pool by a proper way has seen it made
            return pm_pool_free(s.pool.load(std::memory_order_relaxed), block);
        s.free = ::new (block) link{s.free};
        s.room--;
    }

    static void slot_end(slot &s) noexcept
    {
        pm_pool *const p = s.pool.exchange(nullptr, std::memory_order_relaxed);
        for (; s.free; s.room++)
            pm_pool_free(p, std::exchange(s.free, s.free->next));
        pm_pool_destroy(p);
    }

    POOLMALLOC_ASIDE void *allocate_unusual(std::size_t bytes, std::size_t align)
    {
        return is_large(bytes, align) ? large_make(bytes, align) : slot_take(number_of(bytes, align));
    }
    POOLMALLOC_ASIDE void deallocate_unusual(void *block, std::size_t bytes, std::size_t align)
    {
        is_large(bytes, align) ? large_free(block) : slot_give(slots[number_of(bytes, align)], block);
    }

    static bool is_large(std::size_t bytes, std::size_t align) noexcept
    {
        return bytes > detail::largest_block || align > 4096;
    }
    // Of a block that is a multiple of align, as 0 bytes are not: see block_size_of.
    static std::size_t number_of(std::size_t bytes, std::size_t align) noexcept
    {
        bytes += bytes == 0;
        return detail::numbers[(((bytes + align - 1) & (0 - align)) + 15) / 16];
    }

    std::unique_lock<std::mutex> hold()
    {
        return mode == PM_SHARING_NONE ? std::unique_lock<std::mutex>() : std::unique_lock<std::mutex>(making);
    }

    POOLMALLOC_ASIDE void *draw_first(std::size_t number) { return detail::given(pm_pool_alloc(pool_make(number))); }

    pm_pool *pool_make(std::size_t number)
    {
        const auto held = hold();
        pm_pool *p = slots[number].pool.load(std::memory_order_relaxed);
        if (p) // another thread was first
            return p;
        const std::size_t size = detail::block_size_of(number);
        const pm_pool_options wanted = detail::options_for(size, detail::natural_align(size), mode, "pool_resource");
        p = detail::created(pm_pool_create(&wanted));
        slots[number].pool.store(p, std::memory_order_release);
        return p;
    }

    // Bytes from where a large request's memory begins to where the caller's does.
    static std::size_t large_front(std::size_t align) noexcept
    {
        return align > sizeof(detail::large_block) ? align : sizeof(detail::large_block);
    }

    void *large_make(std::size_t bytes, std::size_t align)
    {
        align = align > alignof(std::max_align_t) ? align : alignof(std::max_align_t);
        const std::size_t front = large_front(align), whole = bytes + front;
        if (bytes > PTRDIFF_MAX || align > PTRDIFF_MAX / 2) // no sum wraps around, here or in a careless upstream
            detail::fail_memory();
        char *const block = static_cast<char *>(above->allocate(whole, align)) + front;
        const auto held = hold();
        auto *const record = ::new (block - sizeof(detail::large_block)) detail::large_block{large.next, &large, whole, align};
        large.next = record->next->previous = record;
        return block;
    }

    void large_free(void *block) noexcept
    {
        const auto held = hold();
        large_end(static_cast<detail::large_block *>(block) - 1);
    }

    void large_end(detail::large_block *record) noexcept
    {
        const std::size_t whole = record->bytes, align = record->align;
        record->next->previous = record->previous;
        record->previous->next = record->next;
        above->deallocate(reinterpret_cast<char *>(record + 1) - large_front(align), whole, align);
    }

    std::array<slot, detail::block_sizes> slots;
    std::pmr::memory_resource *const above;
    const pm_sharing mode;
    detail::large_block large{&large, &large, 0, 0};
    std::mutex making; // guards `large`, and the making of pools; not taken by NONE
};

// Memory that is given back all at once; deallocate() does nothing. A buffer is used up first; then, or without one, a growing
// arena begins. One thread at a time.
class arena_resource : public std::pmr::memory_resource
{
public:
    arena_resource() noexcept = default;
    explicit arena_resource(std::size_t bytes) noexcept : made_ready(bytes) {} // how many to begin with, at the first use
    arena_resource(void *buffer, std::size_t bytes) noexcept
        : begin(static_cast<char *>(buffer)), first{begin, begin + bytes}
    {
    }
    arena_resource(const arena_resource &) = delete;
    arena_resource &operator=(const arena_resource &) = delete;

    // Everything is free again; the memory stays.
    void reset() noexcept
    {
        if (grown)
            pm_arena_reset(grown.get());
        restart();
    }
    // Everything is free again, and the memory beyond the buffer goes back.
    void release() noexcept
    {
        grown.reset();
        restart();
    }

protected:
    void *do_allocate(std::size_t bytes, std::size_t align) override
    {
        bytes += bytes == 0; // no two allocations have one address
        void *const block = detail::bump(*room, bytes, align);
        return __builtin_expect(block != nullptr, 1) ? block : grow(bytes, align);
    }
    void do_deallocate(void *, std::size_t, std::size_t) override {}
    bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override { return this == &other; }

private:
    void restart() noexcept
    {
        first.at = begin;
        room = &first;
    }

    POOLMALLOC_ASIDE void *grow(std::size_t bytes, std::size_t align)
    {
        if (!grown)
            grown.reset(detail::created(pm_arena_create(nullptr, made_ready)));
        room = &detail::room_of(grown.get());
        return detail::given(pm_arena_alloc(grown.get(), bytes, align));
    }

    char *const begin = nullptr;            // of the buffer
    pm_arena_room first{nullptr, nullptr};  // what is left of the buffer
    pm_arena_room *room = &first;           // where the next allocation is tried: first, or the arena's own
    std::size_t made_ready = 0;             // bytes that the arena begins with
    std::unique_ptr<pm_arena, detail::destroy> grown;
};

} // namespace poolmalloc

#undef POOLMALLOC_ASIDE

#endif
