// The contenders of pools.cpp. Each is made anew for a task, and says what it can do:
//   gives_back     take() and give(p): blocks of the size it is made for, one by one
//   in_bulk        take_bulk() and give_bulk() too
//   any_threads    from any thread
//   has_allocator  allocator(): for the nodes of standard containers
//   resets         reset() instead of give(): all blocks at once
//   any_size       room(bytes), and reset()
//   small_nodes    blocks of 40 bytes as well as of 64
#pragma once

#include <poolmalloc.hpp>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory_resource>
#include <optional>

#ifdef BENCH_BOOST
#include <boost/pool/object_pool.hpp>
#include <boost/pool/pool.hpp>
#endif
#ifdef BENCH_GLIB
#include <glib.h>
#endif
#ifdef BENCH_APR
#include <apr_general.h>
#include <apr_pools.h>
#endif

namespace pools {

// The compiler no longer knows what p points to: virtual calls stay virtual.
template <class T>
T *hidden(T *p)
{
    __asm__ volatile("" : "+r"(p));
    return p;
}

struct abilities {
    static constexpr bool gives_back = false, in_bulk = false, any_threads = false, has_allocator = false, resets = false,
                          any_size = false, small_nodes = true;
};

template <pm_sharing Sharing, std::size_t Align = 16>
struct own_pool : abilities {
    static constexpr bool gives_back = true, in_bulk = true, any_threads = Sharing != PM_SHARING_NONE, resets = true;
    explicit own_pool(std::size_t bytes)
    {
        pm_pool_options options{};
        options.struct_size = sizeof options;
        options.block_size = bytes;
        options.block_align = Align;
        options.sharing = Sharing;
        owned = poolmalloc::pool(options);
        pool = owned.get();
    }
    void *take() { return pm_pool_alloc(pool); }
    void give(void *p) { pm_pool_free(pool, p); }
    void take_bulk(void **p, std::size_t n)
    {
        if (pm_pool_alloc_bulk(pool, p, n) != n)
            std::abort();
    }
    void give_bulk(void **p, std::size_t n) { pm_pool_free_bulk(pool, p, n); }
    void reset() { pm_pool_reset(pool); }

    poolmalloc::pool owned;
    pm_pool *pool;
};

// Whatever is a memory resource.
template <class Resource>
struct by_resource : abilities {
    static constexpr bool has_allocator = true;
    template <class... Arguments>
    explicit by_resource(std::size_t bytes, Arguments... arguments)
        : resource(arguments...), memory(hidden<std::pmr::memory_resource>(&resource)), block(bytes)
    {
    }
    void *take() { return memory->allocate(block, alignof(std::max_align_t)); }
    void give(void *p) { memory->deallocate(p, block, alignof(std::max_align_t)); }
    void *room(std::size_t bytes) { return memory->allocate(bytes, 8); }
    void reset() { resource.release(); }
    template <class T>
    std::pmr::polymorphic_allocator<T> allocator()
    {
        return memory;
    }

    Resource resource;
    std::pmr::memory_resource *const memory;
    const std::size_t block;
};

template <pm_sharing Sharing>
struct own_resource : by_resource<poolmalloc::pool_resource> {
    static constexpr bool gives_back = true, any_threads = Sharing != PM_SHARING_NONE, resets = true;
    explicit own_resource(std::size_t bytes) : by_resource(bytes, Sharing) {}
};

struct own_allocator : abilities {
    static constexpr bool gives_back = true, any_threads = true, has_allocator = true, small_nodes = false;
    struct alignas(8) node {
        char bytes[64];
    };
    explicit own_allocator(std::size_t) {}
    void *take() { return poolmalloc::allocator<node>().allocate(1); }
    void give(void *p) { poolmalloc::allocator<node>().deallocate(static_cast<node *>(p), 1); }
    template <class T>
    poolmalloc::allocator<T> allocator()
    {
        return {};
    }
};

// Arenas start with a buffer that is large enough for the arena task, so that this compares allocation alone; the memory
// task goes far beyond it.
inline constexpr std::size_t buffer_bytes = std::size_t(1) << 20;
inline char *buffer()
{
    alignas(64) static char bytes[buffer_bytes];
    return bytes;
}

struct own_arena : abilities {
    static constexpr bool resets = true, any_size = true;
    explicit own_arena(std::size_t bytes) : block(bytes) {}
    void *take() { return arena.allocate(block, 16); }
    void *room(std::size_t bytes) { return arena.allocate(bytes, 8); }
    void reset() { arena.reset(); }

    poolmalloc::arena arena;
    const std::size_t block;
};

struct own_arena_resource : by_resource<poolmalloc::arena_resource> {
    static constexpr bool resets = true, any_size = true;
    explicit own_arena_resource(std::size_t bytes) : by_resource(bytes, buffer(), buffer_bytes) {}
    void reset() { resource.reset(); }
};

struct monotonic : by_resource<std::pmr::monotonic_buffer_resource> {
    static constexpr bool resets = true, any_size = true;
    explicit monotonic(std::size_t bytes) : by_resource(bytes, buffer(), buffer_bytes) {}
};

struct unsynchronized : by_resource<std::pmr::unsynchronized_pool_resource> {
    static constexpr bool gives_back = true, resets = true;
    explicit unsynchronized(std::size_t bytes) : by_resource(bytes) {}
};

struct synchronized : by_resource<std::pmr::synchronized_pool_resource> {
    static constexpr bool gives_back = true, any_threads = true, resets = true;
    explicit synchronized(std::size_t bytes) : by_resource(bytes) {}
};

#ifdef BENCH_BOOST
struct boost_pool : abilities {
    static constexpr bool gives_back = true, resets = true;
    explicit boost_pool(std::size_t bytes) : pool(bytes) {}
    void *take() { return pool.malloc(); } // unordered
    void give(void *p) { pool.free(p); }
    void reset() { pool.purge_memory(); }

    boost::pool<> pool;
};

struct boost_object_pool : abilities {
    static constexpr bool gives_back = true, resets = true;
    template <std::size_t Bytes>
    struct object {
        alignas(8) char bytes[Bytes];
    };
    explicit boost_object_pool(std::size_t bytes)
    {
        if (bytes == sizeof(object<40>))
            forty.emplace();
        else
            large.emplace();
    }
    void *take() { return forty ? static_cast<void *>(forty->malloc()) : large->malloc(); }
    void give(void *p) { large->free(static_cast<object<64> *>(p)); } // keeps its list in order: O(blocks free)
    void reset() { large.emplace(); }

    std::optional<boost::object_pool<object<40>>> forty;
    std::optional<boost::object_pool<object<64>>> large;
};
#endif

#ifdef BENCH_GLIB
struct g_slice : abilities {
    static constexpr bool gives_back = true, any_threads = true;
    explicit g_slice(std::size_t bytes) : block(bytes) {}
    void *take() { return g_slice_alloc(block); }
    void give(void *p) { g_slice_free1(block, p); }

    const std::size_t block;
};
#endif

#ifdef BENCH_APR
struct apr : abilities {
    static constexpr bool resets = true, any_size = true;
    explicit apr(std::size_t bytes) : block(bytes)
    {
        if (apr_initialize() != APR_SUCCESS || apr_pool_create(&pool, nullptr) != APR_SUCCESS)
            std::abort();
    }
    apr(const apr &) = delete;
    apr &operator=(const apr &) = delete;
    ~apr() { apr_pool_destroy(pool); }
    void *take() { return apr_palloc(pool, block); }
    void *room(std::size_t bytes) { return apr_palloc(pool, bytes); }
    void reset() { apr_pool_clear(pool); }

    apr_pool_t *pool = nullptr;
    const std::size_t block;
};
#endif

// What a programmer writes in ten lines: one size, one thread, memory that never goes back.
struct inline_list : abilities {
    static constexpr bool gives_back = true, resets = true;
    explicit inline_list(std::size_t bytes) : block(bytes) {}
    inline_list(const inline_list &) = delete;
    inline_list &operator=(const inline_list &) = delete;
    ~inline_list()
    {
        for (void *next; chunks; chunks = next) {
            next = link_of(chunks);
            std::free(chunks);
        }
    }
    void *take()
    {
        if (void *first = head) {
            head = link_of(first);
            return first;
        }
        if (std::size_t(end - at) < block)
            chunk_add();
        void *const fresh = at;
        at += block;
        return fresh;
    }
    void give(void *p)
    {
        std::memcpy(p, &head, sizeof head);
        head = p;
    }
    void reset() // one chunk is enough for the reset task
    {
        head = nullptr;
        at = static_cast<char *>(chunks) + chunk_head;
    }

    static constexpr std::size_t chunk_bytes = std::size_t(1) << 20, chunk_head = 64;
    static void *link_of(void *p)
    {
        void *next;
        std::memcpy(&next, p, sizeof next);
        return next;
    }
    void chunk_add()
    {
        char *const chunk = static_cast<char *>(std::malloc(chunk_bytes));
        std::memcpy(chunk, &chunks, sizeof chunks);
        chunks = chunk;
        at = chunk + chunk_head;
        end = chunk + chunk_bytes;
    }

    void *head = nullptr, *chunks = nullptr;
    char *at = nullptr, *end = nullptr;
    const std::size_t block;
};

struct plain_malloc : abilities {
    static constexpr bool gives_back = true, any_threads = true, has_allocator = true;
    explicit plain_malloc(std::size_t bytes) : block(bytes) {}
    void *take() { return std::malloc(block); }
    void give(void *p) { std::free(p); }
    template <class T>
    std::allocator<T> allocator()
    {
        return {};
    }

    const std::size_t block;
};

} // namespace pools
