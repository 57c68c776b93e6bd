// poolmalloc.hpp: pools and arenas for C++17, over poolmalloc.h. Header only; MIT license.
//
//   pool, arena        own a pm_pool, a pm_arena; move-only
//   arena_scope        what is allocated from an arena while it lives goes back at its end
//   object_pool<T>     make(arguments...) gives a unique_ptr, whose deleter gives the block back
//   allocator<T>       for classic containers: single objects from pools that the whole process shares
//   pool_allocator<T>  the same from one pool
//   pool_resource      a std::pmr::memory_resource; stands in for (un)synchronized_pool_resource
//   arena_resource     the same for monotonic_buffer_resource
//
// What fails for want of memory throws std::bad_alloc, and a pool that cannot be as asked for std::invalid_argument; built
// with -fno-exceptions both abort. RTTI is not used. Threads: as poolmalloc.h says of the pool or arena underneath.
#ifndef POOLMALLOC_HPP
#define POOLMALLOC_HPP

#if __cplusplus < 201703L
#error "poolmalloc.hpp needs C++17 or later (-std=c++17)"
#endif

#include <poolmalloc.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
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
    if (__builtin_expect(!block, 0))
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

template <class Stats, class Of>
Stats stats_of(void (*get)(const Of *, Stats *), const Of *of) noexcept
{
    Stats stats{};
    stats.struct_size = sizeof stats;
    get(of, &stats);
    return stats;
}

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

constexpr bool is_power_of_two(std::size_t n) noexcept { return n && !(n & (n - 1)); }

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
    pm_pool_stats stats() const noexcept { return detail::stats_of(pm_pool_stats_get, get()); }

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
    explicit arena(const pm_arena_options &wanted) : owned(detail::created(pm_arena_create_with(&wanted))) {}

    [[nodiscard]] void *allocate(std::size_t size, std::size_t align = alignof(std::max_align_t))
    {
        return detail::given(try_allocate(size, align));
    }
    [[nodiscard]] void *try_allocate(std::size_t size, std::size_t align = alignof(std::max_align_t)) noexcept
    {
        void *const block = get() && detail::is_power_of_two(align) ? detail::bump(detail::room_of(get()), size, align) : nullptr;
        return block ? block : pm_arena_alloc(get(), size, align);
    }
    // Its destructor, where it has one, runs when its memory is given back: the last made goes first.
    template <class T, class... Arguments>
    T *make(Arguments &&...arguments)
    {
        T *const object = ::new (allocate(sizeof(T), alignof(T))) T(std::forward<Arguments>(arguments)...);
        if constexpr (!std::is_trivially_destructible_v<T>)
            if (pm_arena_defer(get(), [](void *made) { static_cast<T *>(made)->~T(); }, object) != 0) {
                object->~T();
                detail::fail_memory();
            }
        return object;
    }
    std::size_t bytes_used() const noexcept { return detail::stats_of(pm_arena_stats_get, get()).used; }
    pm_arena_mark save() const noexcept { return pm_arena_save(get()); }
    void rewind(pm_arena_mark mark) noexcept { pm_arena_rewind(get(), mark); }
    void reset() noexcept { pm_arena_reset(get()); }

    pm_arena *get() const noexcept { return owned.get(); }
    pm_arena *release() noexcept { return owned.release(); } // the caller's, to destroy
    explicit operator bool() const noexcept { return get() != nullptr; }

private:
    std::unique_ptr<pm_arena, detail::destroy> owned;
};

// What is allocated from an arena while this lives goes back at its end; scopes end in the opposite order of their beginnings.
class arena_scope
{
public:
    explicit arena_scope(pm_arena *scoped) noexcept : within(scoped), mark(pm_arena_save(scoped)) {}
    explicit arena_scope(const arena &scoped) noexcept : arena_scope(scoped.get()) {}
    arena_scope(const arena_scope &) = delete;
    arena_scope &operator=(const arena_scope &) = delete;
    ~arena_scope() { pm_arena_rewind(within, mark); }

private:
    pm_arena *const within;
    const pm_arena_mark mark;
};

// ---- objects ----

// Ends an object and gives its block back.
template <class T>
struct object_deleter : detail::give_back {
    void operator()(T *object) const noexcept
    {
        object->~T();
        detail::give_back::operator()(object);
    }
};

// The same by a pointer to a base, whose destructor need not be virtual: base_ptr<shape> p = circles.make(1.0);
template <class Base>
struct base_deleter {
    base_deleter() noexcept = default;
    template <class T, class = std::enable_if_t<std::is_base_of_v<Base, T>>>
    base_deleter(const object_deleter<T> &exact) noexcept
        : from(exact.from), end([](pm_pool *pool, Base *base) { object_deleter<T>{{pool}}(static_cast<T *>(base)); })
    {
    }
    void operator()(Base *base) const noexcept { end(from, base); }

private:
    pm_pool *from = nullptr;
    void (*end)(pm_pool *, Base *) = nullptr;
};
template <class Base>
using base_ptr = std::unique_ptr<Base, base_deleter<Base>>;

// Objects of one type. Its end is that of all objects that are still there; what make() gives must be gone by then.
template <class T>
class object_pool
{
    static_assert(detail::fits_pool<T>, "blocks have at most 64 KiB, and alignments of at most 4096");

public:
    using deleter = object_deleter<T>;
    using pointer = std::unique_ptr<T, deleter>;

    explicit object_pool(std::size_t initial_blocks = 0, pm_sharing sharing = PM_SHARING_THREADS)
        : blocks(options_for(initial_blocks, sharing))
    {
    }
    // As wanted, with blocks that fit T.
    explicit object_pool(const pm_pool_options &wanted) : blocks(options_fitted(wanted)) {}
    object_pool(object_pool &&) noexcept = default;
    object_pool &operator=(object_pool &&other) noexcept
    {
        if (this != &other) {
            end_all();
            blocks = std::move(other.blocks);
        }
        return *this;
    }
    ~object_pool() { end_all(); }

    // When T's constructor throws, the block goes back.
    template <class... Arguments>
    [[nodiscard]] T *construct(Arguments &&...arguments)
    {
        std::unique_ptr<void, detail::give_back> block(blocks.allocate(), {blocks.get()});
        T *const object = ::new (block.get()) T(std::forward<Arguments>(arguments)...);
        block.release();
        return object;
    }
    void destroy(T *object) noexcept
    {
        if (object)
            deleter{{blocks.get()}}(object);
    }
    template <class... Arguments>
    [[nodiscard]] pointer make(Arguments &&...arguments)
    {
        return pointer(construct(std::forward<Arguments>(arguments)...), deleter{{blocks.get()}});
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
    static pm_pool_options options_fitted(pm_pool_options wanted) noexcept
    {
        wanted.block_size = wanted.block_size > sizeof(T) ? wanted.block_size : sizeof(T);
        wanted.block_align = wanted.block_align > detail::block_align_of<T> ? wanted.block_align : detail::block_align_of<T>;
        return wanted;
    }
    // Not those that came from malloc beyond the maximum (PM_OVERFLOW_FORWARD): the pool does not know them.
    void end_all() noexcept
    {
        if constexpr (!std::is_trivially_destructible_v<T>)
            pm_pool_visit(blocks.get(), [](void *object, void *) { static_cast<T *>(object)->~T(); }, nullptr);
    }

    pool blocks;
};

// ---- classic containers ----

namespace detail {

// A pool, and the functions that made it. Each object that is linked with poolmalloc-core has its own ones, while the dynamic
// linker lets all objects share one static variable.
struct shared_pool {
    pm_pool *pool;
    void *(*alloc)(pm_pool *);
    void (*free)(pm_pool *, void *);
};

// One for all types of a size and alignment in the process. Never destroyed: containers may outlive any static object. Visible
// from every shared object, so that all of them mean the same. (Where none is shared, between objects that clang built and
// dlopen loaded apart, or that hide all of their symbols, each has its own, and frees its containers itself.)
template <std::size_t Size, std::size_t Align>
__attribute__((visibility("default"))) inline const shared_pool &shared_pool_of()
{
    static const shared_pool made = [] {
        const pm_pool_options wanted = options_for(Size, Align, PM_SHARING_THREADS, "allocator");
        return shared_pool{created(pm_pool_create(&wanted)), pm_pool_alloc, pm_pool_free};
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
                return static_cast<T *>(detail::given(shared().alloc(shared().pool)));
        return std::allocator<T>().allocate(n);
    }
    void deallocate(T *p, std::size_t n) noexcept
    {
        if constexpr (detail::fits_pool<T>)
            if (n == 1)
                return shared().free(shared().pool, p);
        std::allocator<T>().deallocate(p, n);
    }

private:
    // The size as rounded: types that differ within the rounding share a pool.
    static const detail::shared_pool &shared()
    {
        constexpr std::size_t align = detail::block_align_of<T>, size = sizeof(T) < 16 ? 16 : sizeof(T);
        return detail::shared_pool_of<(size + align - 1) & ~(align - 1), align>();
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

// Whatever fits into a block of one pool, from there; larger, or aligned beyond its blocks, from operator new. The pool must
// outlive all that was allocated. For a container whose nodes are to be counted, limited, or of one thread.
template <class T>
class pool_allocator
{
public:
    using value_type = T;
    using propagate_on_container_copy_assignment = std::true_type;
    using propagate_on_container_move_assignment = std::true_type;
    using propagate_on_container_swap = std::true_type;

    explicit pool_allocator(pm_pool *of) noexcept : from(of)
    {
        const pm_pool_stats stats = detail::stats_of(pm_pool_stats_get, of);
        block_size = stats.block_size;
        block_align = stats.block_align;
    }
    explicit pool_allocator(const pool &of) noexcept : pool_allocator(of.get()) {}
    template <class U>
    pool_allocator(const pool_allocator<U> &other) noexcept
        : from(other.from), block_size(other.block_size), block_align(other.block_align)
    {
    }

    [[nodiscard]] T *allocate(std::size_t n)
    {
        return fits(n) ? static_cast<T *>(detail::given(pm_pool_alloc(from))) : std::allocator<T>().allocate(n);
    }
    void deallocate(T *p, std::size_t n) noexcept
    {
        fits(n) ? pm_pool_free(from, p) : std::allocator<T>().deallocate(p, n);
    }
    pm_pool *pool_used() const noexcept { return from; }

private:
    template <class>
    friend class pool_allocator;
    bool fits(std::size_t n) const noexcept { return n <= block_size / sizeof(T) && alignof(T) <= block_align; }

    pm_pool *from;
    std::size_t block_size, block_align;
};

template <class T, class U>
bool operator==(const pool_allocator<T> &a, const pool_allocator<U> &b) noexcept
{
    return a.pool_used() == b.pool_used();
}
template <class T, class U>
bool operator!=(const pool_allocator<T> &a, const pool_allocator<U> &b) noexcept
{
    return !(a == b);
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

// Block size number for each 16 bytes: of 1 to 16 bytes, of 17 to 32, ...
constexpr std::array<std::uint8_t, largest_block / 16> numbers_make()
{
    std::array<std::uint8_t, largest_block / 16> table{};
    std::uint8_t number = 0;
    for (std::size_t i = 0; i < table.size(); i++) {
        if (16 * (i + 1) > block_size_of(number))
            number++;
        table[i] = number;
    }
    return table;
}
inline constexpr std::array<std::uint8_t, largest_block / 16> numbers = numbers_make();

// The largest power of two that divides a block size, up to what pools align to.
constexpr std::size_t natural_align(std::size_t size)
{
    const std::size_t lowest = size & (0 - size);
    return lowest < 4096 ? lowest : 4096;
}

// What came from an upstream resource: this stands in front of it, so that the end of all finds it, and deallocate() need not
// search.
struct upstream_block {
    upstream_block *next, *previous; // a ring
    std::size_t bytes, align;        // of the whole, this and all; as asked of the upstream resource
};

inline std::atomic<unsigned> resources_named{0};

} // namespace detail

struct pool_resource_options {
    const char *name = nullptr; // its pools are called NAME-16, NAME-32 ...; null: "pool_resource1" and so on
    pm_sharing sharing = PM_SHARING_THREADS;
    std::size_t limit = 0;                             // bytes of all blocks in use, as rounded, at most; 0: no limit
    std::size_t largest_block = detail::largest_block; // larger requests go to the upstream resource; 0 to 32768
    std::pmr::memory_resource *upstream = std::pmr::new_delete_resource();
    bool small_from_upstream = false; // the memory of small blocks, too: in chunks. THREADS becomes LOCKED
};

struct pool_resource_stats {
    std::size_t used;     // bytes of blocks in use, as rounded, and of what came from the upstream resource one by one
    std::size_t capacity; // bytes of blocks, in use or not, in memory that pools have
    std::size_t pools;    // made so far: one for each block size in use
    std::size_t large;    // blocks of `used` that came from the upstream resource one by one
};

// Requests up to 32 KiB come from one pool for each of 40 block sizes, made at its first use; larger ones, and those aligned
// beyond 4096, from the upstream resource. THREADS and LOCKED serve any threads (as synchronized_pool_resource does), NONE one
// at a time (as unsynchronized_pool_resource). Blocks must not be used after release() or the end of the resource. With a limit
// every call counts, some ns dearer; what goes beyond it throws std::bad_alloc.
class pool_resource : public std::pmr::memory_resource
{
public:
    explicit pool_resource(pm_sharing sharing = PM_SHARING_THREADS,
                           std::pmr::memory_resource *upstream = std::pmr::new_delete_resource())
        : pool_resource(pool_resource_options{nullptr, sharing, 0, detail::largest_block, upstream, false})
    {
    }
    explicit pool_resource(const pool_resource_options &wanted)
        : above(wanted.upstream), mode(wanted.small_from_upstream && wanted.sharing == PM_SHARING_THREADS ? PM_SHARING_LOCKED
                                                                                                           : wanted.sharing),
          largest(wanted.largest_block), limit(wanted.limit), chunks(wanted.small_from_upstream)
    {
        const bool good = wanted.sharing >= PM_SHARING_THREADS && wanted.sharing <= PM_SHARING_NONE;
        if (!good || !above || largest > detail::largest_block)
            detail::fail_creation(EINVAL);
        short_most = limit ? 0 : largest;
        if (wanted.name)
            std::snprintf(name, sizeof name, "%s", wanted.name);
        else
            std::snprintf(name, sizeof name, "pool_resource%u", ++detail::resources_named);
    }
    pool_resource(const pool_resource &) = delete;
    pool_resource &operator=(const pool_resource &) = delete;
    ~pool_resource() override { release(); }

    // Gives everything back, whether it was deallocated or not. No other thread may be using the resource.
    void release() noexcept
    {
        for (slot &s : slots) {
            s.hand.store(pm_pool_hand_of_thread(nullptr), std::memory_order_relaxed);
            pm_pool_destroy(s.pool.exchange(nullptr, std::memory_order_relaxed));
        }
        while (ring.next != &ring)
            upstream_end(ring.next);
        counted.store(0, std::memory_order_relaxed);
        large = 0;
        large_bytes = 0;
    }
    // What pools do not need now goes back; the bytes of it.
    std::size_t trim() noexcept
    {
        std::size_t bytes = 0;
        for (const slot &s : slots)
            bytes += pm_pool_trim(s.pool.load(std::memory_order_acquire));
        return bytes;
    }
    pool_resource_stats stats() noexcept
    {
        const auto held = hold();
        pool_resource_stats sum{large_bytes, 0, 0, large};
        for (const slot &s : slots)
            if (pm_pool *const p = s.pool.load(std::memory_order_relaxed)) {
                const pm_pool_stats one = detail::stats_of(pm_pool_stats_get, p);
                sum.used += one.used * one.block_size;
                sum.capacity += one.capacity * one.block_size;
                sum.pools++;
            }
        return sum;
    }

    std::pmr::memory_resource *upstream_resource() const noexcept { return above; }
    pm_sharing sharing() const noexcept { return mode; }

protected:
    // 0 bytes, less 1, are more than short_most.
    void *do_allocate(std::size_t bytes, std::size_t align) override
    {
        if (__builtin_expect(bytes - 1 >= short_most || !is_plain(align), 0))
            return allocate_unusual(bytes, align);
        return slot_take(detail::numbers[(bytes - 1) / 16]);
    }

    void do_deallocate(void *block, std::size_t bytes, std::size_t align) override
    {
        if (__builtin_expect(bytes - 1 >= short_most || align > 16, 0))
            return deallocate_unusual(block, bytes, align);
        slot_give(slots[detail::numbers[(bytes - 1) / 16]], block);
    }

    bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override { return this == &other; }

private:
    // Where the hand of its pool is: so many bytes from pm_thread, or, beyond those, an address. An empty one while there is no
    // pool, or where it has no hand.
    struct slot {
        std::atomic<std::uintptr_t> hand{pm_pool_hand_of_thread(nullptr)};
        std::atomic<pm_pool *> pool{nullptr};
    };

    // 1, 2, 4, 8 or 16.
    static bool is_plain(std::size_t align) noexcept { return align <= 16 && (0x10116u >> align & 1); }

    static pm_pool_hand *hand_of(const slot &s) noexcept
    {
        std::uintptr_t at = s.hand.load(std::memory_order_acquire); // partner: pool_make
        if (at < 65536)
            at += reinterpret_cast<std::uintptr_t>(pm_thread);
        return reinterpret_cast<pm_pool_hand *>(at);
    }

    void *slot_take(std::size_t number)
    {
        void *const block = pm_hand_take(hand_of(slots[number]));
        return __builtin_expect(block != nullptr, 1) ? block : slot_draw(number);
    }

    // Not noexcept: that would take the tail out of this tail call.
    void slot_give(slot &s, void *block)
    {
        if (__builtin_expect(!pm_hand_give(hand_of(s), block), 0))
            slot_put(s, block);
    }
    __attribute__((noinline)) void slot_put(slot &s, void *block)
    {
        pm_pool_free(s.pool.load(std::memory_order_relaxed), block); // whoever has a block by a proper way has seen it made
    }

    __attribute__((noinline)) void *slot_draw(std::size_t number)
    {
        pm_pool *p = slots[number].pool.load(std::memory_order_acquire);
        p = __builtin_expect(p != nullptr, 1) ? p : pool_make(number);
        void *const block = pm_pool_alloc(p);
        return __builtin_expect(block || !chunks, 1) ? detail::given(block) : chunk_draw(number, p);
    }

    // ---- off the short ways ----

    POOLMALLOC_ASIDE void *allocate_unusual(std::size_t bytes, std::size_t align)
    {
        if (!detail::is_power_of_two(align))
            detail::fail_creation(EINVAL);
        if (is_large(bytes, align))
            return large_make(bytes, align);
        const std::size_t number = number_of(bytes, align);
        void *const block = slot_take(number);
        if (!count(detail::block_size_of(number))) {
            slot_give(slots[number], block);
            detail::fail_memory();
        }
        return block;
    }
    POOLMALLOC_ASIDE void deallocate_unusual(void *block, std::size_t bytes, std::size_t align)
    {
        if (is_large(bytes, align))
            return large_free(block, bytes);
        const std::size_t number = number_of(bytes, align);
        slot_give(slots[number], block);
        count_back(detail::block_size_of(number));
    }

    bool is_large(std::size_t bytes, std::size_t align) const noexcept { return bytes > largest || align > 4096; }
    // Of a block that is a multiple of align, as 0 bytes are not: see block_size_of.
    static std::size_t number_of(std::size_t bytes, std::size_t align) noexcept
    {
        bytes += bytes == 0;
        return detail::numbers[(((bytes + align - 1) & (0 - align)) - 1) / 16];
    }

    // Bytes in use, where there is a limit. False: that many more would be beyond it.
    bool count(std::size_t bytes) noexcept
    {
        if (!limit)
            return true;
        if (bytes <= limit && counted.fetch_add(bytes, std::memory_order_relaxed) <= limit - bytes)
            return true;
        if (bytes <= limit)
            count_back(bytes);
        return false;
    }
    void count_back(std::size_t bytes) noexcept
    {
        if (limit)
            counted.fetch_sub(bytes, std::memory_order_relaxed);
    }

    struct refund {
        std::size_t bytes;
        void operator()(pool_resource *of) const noexcept { of->count_back(bytes); }
    };

    std::unique_lock<std::mutex> hold()
    {
        return mode == PM_SHARING_NONE ? std::unique_lock<std::mutex>() : std::unique_lock<std::mutex>(making);
    }

    POOLMALLOC_ASIDE pm_pool *pool_make(std::size_t number)
    {
        const auto held = hold();
        slot &s = slots[number];
        pm_pool *p = s.pool.load(std::memory_order_relaxed);
        if (p) // another thread was first
            return p;
        char called[48];
        const std::size_t size = detail::block_size_of(number);
        std::snprintf(called, sizeof called, "%s-%zu", name, size);
        pm_pool_options wanted = detail::options_for(size, detail::natural_align(size), mode, called);
        if (chunks) {
            wanted.buffer_bytes = chunk_bytes(size, 0);
            wanted.buffer = upstream_add(wanted.buffer_bytes, wanted.block_align);
        }
        p = detail::created(pm_pool_create(&wanted));
        if (mode == PM_SHARING_NONE)
            s.hand.store(reinterpret_cast<std::uintptr_t>(p), std::memory_order_release);
        else
            s.hand.store(pm_pool_hand_of_thread(p), std::memory_order_release);
        s.pool.store(p, std::memory_order_release);
        return p;
    }

    // Sixteen blocks, or half as much again as the pool has.
    static std::size_t chunk_bytes(std::size_t size, std::size_t have) noexcept
    {
        return have / 2 > 16 * size ? have / 2 : 16 * size;
    }

    POOLMALLOC_ASIDE void *chunk_draw(std::size_t number, pm_pool *p)
    {
        const auto held = hold();
        void *block = pm_pool_alloc(p); // another thread may have been first
        while (!block) {
            const pm_pool_stats now = detail::stats_of(pm_pool_stats_get, p);
            const std::size_t size = detail::block_size_of(number), bytes = chunk_bytes(size, now.capacity * size);
            if (pm_pool_extend(p, upstream_add(bytes, now.block_align), bytes) != 0)
                detail::fail_memory();
            block = pm_pool_alloc(p);
        }
        return block;
    }

    // Bytes from where the memory from above begins to where the caller's does.
    static std::size_t front_of(std::size_t align) noexcept
    {
        return align > sizeof(detail::upstream_block) ? align : sizeof(detail::upstream_block);
    }

    detail::upstream_block *upstream_take(std::size_t bytes, std::size_t align)
    {
        align = align > alignof(std::max_align_t) ? align : alignof(std::max_align_t);
        if (bytes > PTRDIFF_MAX || align > PTRDIFF_MAX / 2) // no sum wraps around, here or in a careless upstream
            detail::fail_memory();
        const std::size_t front = front_of(align), whole = bytes + front;
        char *const block = static_cast<char *>(above->allocate(whole, align)) + front;
        return ::new (block - sizeof(detail::upstream_block)) detail::upstream_block{nullptr, nullptr, whole, align};
    }
    // With the lock, as the following.
    void ring_add(detail::upstream_block *record) noexcept
    {
        record->next = ring.next;
        record->previous = &ring;
        ring.next = record->next->previous = record;
    }
    void *upstream_add(std::size_t bytes, std::size_t align)
    {
        detail::upstream_block *const record = upstream_take(bytes, align);
        ring_add(record);
        return record + 1;
    }
    void upstream_end(detail::upstream_block *record) noexcept
    {
        const std::size_t whole = record->bytes, align = record->align;
        record->next->previous = record->previous;
        record->previous->next = record->next;
        above->deallocate(reinterpret_cast<char *>(record + 1) - front_of(align), whole, align);
    }

    void *large_make(std::size_t bytes, std::size_t align)
    {
        if (!count(bytes))
            detail::fail_memory();
        std::unique_ptr<pool_resource, refund> counted_for(this, {bytes}); // above may throw
        detail::upstream_block *const record = upstream_take(bytes, align);
        counted_for.release();
        const auto held = hold();
        ring_add(record);
        large++;
        large_bytes += bytes;
        return record + 1;
    }

    void large_free(void *block, std::size_t bytes) noexcept
    {
        const auto held = hold();
        large--;
        large_bytes -= bytes;
        count_back(bytes);
        upstream_end(static_cast<detail::upstream_block *>(block) - 1);
    }

    std::array<slot, detail::block_sizes> slots;
    std::pmr::memory_resource *const above;
    const pm_sharing mode;
    const std::size_t largest, limit;
    const bool chunks; // of the pools come from `above`
    char name[24];
    std::size_t short_most; // no larger request takes the short way; 0: none at all
    std::atomic<std::size_t> counted{0};
    detail::upstream_block ring{&ring, &ring, 0, 0};
    std::size_t large = 0, large_bytes = 0;
    std::mutex making; // guards what has come from above, and the making of pools; not taken by NONE
};

struct arena_resource_options {
    void *buffer = nullptr; // used up first
    std::size_t buffer_bytes = 0;
    std::size_t bytes = 0;       // that the growing arena begins with, at its first use
    std::size_t limit = 0;       // bytes that it takes at most, beside the buffer; 0: no limit
    std::size_t chunk_bytes = 0; // by so many it grows; 0: 128 KiB
    std::pmr::memory_resource *upstream = nullptr; // where its memory comes from; null: slabs and malloc
};

// Memory that is given back all at once; deallocate() does nothing. A buffer is used up first; then, or without one, a growing
// arena begins. One thread at a time.
class arena_resource : public std::pmr::memory_resource
{
public:
    arena_resource() noexcept : arena_resource(nullptr, 0) {}
    explicit arena_resource(std::size_t bytes, std::pmr::memory_resource *upstream = nullptr) noexcept // to begin with
        : arena_resource(arena_resource_options{nullptr, 0, bytes, 0, 0, upstream})
    {
    }
    arena_resource(void *buffer, std::size_t bytes, std::pmr::memory_resource *upstream = nullptr) noexcept
        : arena_resource(arena_resource_options{buffer, bytes, 0, 0, 0, upstream})
    {
    }
    explicit arena_resource(const arena_resource_options &options) noexcept
        : wanted(options), first{begin(), begin() ? begin() + wanted.buffer_bytes : nullptr}
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

    // Allocated, and skipped for alignment and at the end of chunks.
    std::size_t bytes_used() const noexcept { return first_used() + grown_stats().used; }
    // Of its memory, used or not, with the buffer.
    std::size_t bytes_held() const noexcept { return wanted.buffer_bytes + grown_stats().held; }
    std::pmr::memory_resource *upstream_resource() const noexcept { return wanted.upstream; }

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
        first.at = begin();
        room = &first;
    }
    char *begin() const noexcept { return static_cast<char *>(wanted.buffer); }
    std::size_t first_used() const noexcept { return begin() ? static_cast<std::size_t>(first.at - begin()) : 0; }
    pm_arena_stats grown_stats() const noexcept { return detail::stats_of(pm_arena_stats_get, grown.get()); }

    static std::pmr::memory_resource *above(void *context) noexcept { return static_cast<std::pmr::memory_resource *>(context); }
    static void *take(std::size_t bytes, void *context)
    {
#ifdef __cpp_exceptions
        try {
            return above(context)->allocate(bytes, alignof(std::max_align_t));
        } catch (...) { // there is C code between here and the caller, who gets std::bad_alloc
            return nullptr;
        }
#else
        return above(context)->allocate(bytes, alignof(std::max_align_t));
#endif
    }
    static void give(void *memory, std::size_t bytes, void *context)
    {
        above(context)->deallocate(memory, bytes, alignof(std::max_align_t));
    }

    pm_arena *arena_make() const
    {
        pm_arena_options options{};
        options.struct_size = sizeof options;
        options.bytes = wanted.bytes;
        options.limit = wanted.limit;
        options.chunk_bytes = wanted.chunk_bytes;
        if (wanted.upstream) {
            options.take = take;
            options.give = give;
            options.context = wanted.upstream;
        }
        return detail::created(pm_arena_create_with(&options));
    }

    POOLMALLOC_ASIDE void *grow(std::size_t bytes, std::size_t align)
    {
        if (!grown)
            grown.reset(arena_make());
        room = &detail::room_of(grown.get());
        return detail::given(pm_arena_alloc(grown.get(), bytes, align));
    }

    const arena_resource_options wanted;
    pm_arena_room first;          // what is left of the buffer
    pm_arena_room *room = &first; // where the next allocation is tried: first, or the arena's own
    std::unique_ptr<pm_arena, detail::destroy> grown;
};

} // namespace poolmalloc

#undef POOLMALLOC_ASIDE

#endif
