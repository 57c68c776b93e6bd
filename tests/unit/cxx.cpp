// poolmalloc.hpp: each class, its bad input, and what it promises of memory. Also built without exceptions and RTTI.
#include <poolmalloc.hpp>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <list>
#include <map>
#include <memory_resource>
#include <set>
#include <string>
#include <thread>
#include <type_traits>
#include <unordered_map>
#include <vector>

namespace {

using namespace poolmalloc;

#define CHECK(condition) check_that((condition), #condition, __LINE__)

void check_that(bool holds, const char *what, int line)
{
    if (holds)
        return;
    std::fprintf(stderr, "cxx.cpp:%d: %s does not hold\n", line, what);
    std::exit(1);
}

bool is_aligned(const void *p, std::size_t align) { return reinterpret_cast<std::uintptr_t>(p) % align == 0; }

#ifdef __cpp_exceptions
// Neither the compiler nor a sanitizer's operator new is to see it.
const volatile std::size_t absurd_hidden = SIZE_MAX;
const std::size_t absurd = absurd_hidden;

template <class Exception, class Call>
bool throws(Call call)
{
    try {
        call();
    } catch (const Exception &) {
        return true;
    }
    return false;
}
#endif

// ---- pool, arena ----

template <class T>
constexpr bool move_only = !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T> &&
                           std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T>;
static_assert(move_only<pool> && move_only<arena> && move_only<object_pool<int>>);
static_assert(!std::is_copy_constructible_v<pool_resource> && !std::is_move_constructible_v<pool_resource>);
static_assert(!std::is_copy_constructible_v<arena_resource> && !std::is_move_constructible_v<arena_resource>);

void pool_moves()
{
    pool none, first(100);
    CHECK(!none && first && first.stats().block_size == 112);
    void *block = first.allocate();
    CHECK(first.owns(block) && !first.owns(&none));
    pool second = std::move(first);
    CHECK(!first && second.stats().used == 1);
    none = std::move(second);
    none.deallocate(block);
    CHECK(none.stats().used == 0);
    static_cast<void>(none.allocate());
    none.reset();
    CHECK(none.stats().used == 0);
    none.trim();
    pool empty;
    CHECK(empty.try_allocate() == nullptr);
    pm_pool_destroy(none.release());
    CHECK(!none);
}

void pool_limits()
{
    pm_pool_options options{};
    options.struct_size = sizeof options;
    options.block_size = 64;
    options.max_blocks = 2;
    options.sharing = PM_SHARING_LOCKED;
    pool two(options);
    CHECK(two.try_allocate() && two.try_allocate() && !two.try_allocate());
#ifdef __cpp_exceptions
    CHECK(throws<std::bad_alloc>([&] { static_cast<void>(two.allocate()); }));
    options.block_align = 3;
    CHECK(throws<std::invalid_argument>([&] { pool bad(options); }));
    CHECK(throws<std::invalid_argument>([] { pool bad(std::size_t(1) << 20); }));
#endif
}

struct triple {
    int a, b, c;
    triple(int x, int y, int z) : a(x), b(y), c(z) {}
};

void arena_use()
{
    arena growing;
    char *first = static_cast<char *>(growing.allocate(1)), *second = static_cast<char *>(growing.allocate(1));
    CHECK(first != second && is_aligned(second, 16));
    CHECK(is_aligned(growing.allocate(10, 4096), 4096));
    const pm_arena_mark mark = growing.save();
    triple *t = growing.make<triple>(1, 2, 3);
    CHECK(t->a + t->b + t->c == 6);
    growing.rewind(mark);
    CHECK(static_cast<void *>(growing.make<triple>(4, 5, 6)) == t);
    for (std::size_t i = 0; i < 1000; i++) // over many chunks, and larger than one
        std::memset(growing.allocate(i * 400, 8), 1, i * 400);
    growing.reset();
    CHECK(growing.allocate(1) == first);
    CHECK(growing.try_allocate(SIZE_MAX) == nullptr && growing.try_allocate(SIZE_MAX - 8, 4096) == nullptr);

    alignas(16) char buffer[1024];
    arena bounded(buffer, sizeof buffer), moved = std::move(bounded);
    CHECK(!bounded && moved.try_allocate(512) && !moved.try_allocate(512));
#ifdef __cpp_exceptions
    CHECK(throws<std::bad_alloc>([&] { static_cast<void>(moved.allocate(512)); }));
    CHECK(throws<std::invalid_argument>([&] { arena bad(buffer, 0); }));
#endif
}

// ---- object_pool ----

struct counted {
    static inline int alive = 0;
    std::array<char, 33> rest{};
    explicit counted(bool fail = false)
    {
#ifdef __cpp_exceptions
        if (fail)
            throw 1;
#else
        static_cast<void>(fail);
#endif
        alive++;
    }
    counted(const counted &) = delete;
    counted &operator=(const counted &) = delete;
    ~counted() { alive--; }
};

struct alignas(256) wide {
    char c[300];
};

void objects()
{
    object_pool<counted> pool(100);
    object_pool<counted>::pointer none;
    CHECK(!none && pool.stats().capacity >= 100);
    {
        auto first = pool.make(), second = pool.make();
        CHECK(counted::alive == 2 && pool.stats().used == 2 && first.get() != second.get());
        none = std::move(first);
        CHECK(!first && counted::alive == 2);
        second.reset();
        CHECK(counted::alive == 1 && pool.stats().used == 1);
    }
    none.reset();
    CHECK(counted::alive == 0 && pool.stats().used == 0);
#ifdef __cpp_exceptions
    CHECK(throws<int>([&] { static_cast<void>(pool.make(true)); }));
    CHECK(counted::alive == 0 && pool.stats().used == 0);
#endif
    object_pool<wide> wides(0, PM_SHARING_NONE);
    std::vector<object_pool<wide>::pointer> many;
    for (int i = 0; i < 1000; i++) {
        many.push_back(wides.make());
        CHECK(is_aligned(many.back().get(), 256));
    }
    CHECK(object_pool<char>().stats().block_size == 16);
    struct forty {
        std::uint64_t word[5];
    };
    CHECK(object_pool<forty>().stats().block_size == 40); // packed
}

// Destructors of what an arena gives back, and of what is left in a pool at its end.
void objects_end()
{
    arena growing;
    counted *first = growing.make<counted>();
    {
        arena_scope scope(growing);
        static_cast<void>(growing.make<counted>());
        static_cast<void>(growing.make<counted>());
        CHECK(counted::alive == 3 && growing.bytes_used() > 3 * sizeof(counted));
    }
    CHECK(counted::alive == 1 && growing.make<counted>() != first);
    growing.reset();
    CHECK(counted::alive == 0 && growing.bytes_used() == 0);
    arena none = std::move(growing);
    CHECK(growing.try_allocate(1) == nullptr); // NOLINT: moved from
    CHECK(none.try_allocate(8, 3) == nullptr);
#ifdef __cpp_exceptions
    CHECK(throws<int>([&] { static_cast<void>(none.make<counted>(true)); }));
    pm_arena_options little{};
    little.struct_size = sizeof little;
    little.limit = 1;
    CHECK(throws<std::bad_alloc>([&] { arena bad(little); }));
#endif
    {
        pm_pool_options options{};
        options.struct_size = sizeof options;
        options.name = "ended";
        options.max_blocks = 3;
        options.sharing = PM_SHARING_NONE;
        object_pool<counted> pool(options);
        counted *a = pool.construct(), *b = pool.construct();
        CHECK(counted::alive == 2 && pool.stats().capacity == 3 && a != b);
        pool.destroy(a);
        pool.destroy(nullptr);
        CHECK(counted::alive == 1 && pool.stats().used == 1);
        object_pool<counted> other = std::move(pool), third;
        static_cast<void>(third.construct());
        CHECK(counted::alive == 2);
        third = std::move(other);
        CHECK(counted::alive == 1 && third.stats().used == 1);
    }
    CHECK(counted::alive == 0);
}

struct shape {
    int corners = 0;
};
struct named {
    std::string name{"a name that does not fit into the string"};
};
struct square : named, shape { // whose shape does not begin where it begins
    square() { corners = 4; }
    counted c;
};

void objects_by_their_base()
{
    object_pool<square> squares;
    base_ptr<shape> p, q = squares.make();
    CHECK(!p && q->corners == 4 && counted::alive == 1);
    p = std::move(q);
    CHECK(!q && p->corners == 4 && squares.stats().used == 1);
    p.reset();
    CHECK(counted::alive == 0 && squares.stats().used == 0);
    std::vector<base_ptr<shape>> shapes;
    for (int i = 0; i < 100; i++)
        shapes.emplace_back(squares.make());
    CHECK(counted::alive == 100);
}

void visits_that_throw()
{
#ifdef __cpp_exceptions
    for (pm_sharing mode : {PM_SHARING_THREADS, PM_SHARING_LOCKED, PM_SHARING_NONE}) {
        pool blocks(64, mode);
        for (int i = 0; i < 1000; i++)
            static_cast<void>(blocks.allocate());
        for (int after = 0; after < 1000; after += 99)
            CHECK(throws<int>([&] {
                int left = after;
                pm_pool_visit(blocks.get(), [](void *, void *n) { if ((*static_cast<int *>(n))-- == 0) throw 1; }, &left);
            }));
        int visited = 0;
        pm_pool_visit(blocks.get(), [](void *, void *n) { ++*static_cast<int *>(n); }, &visited);
        CHECK(visited == 1000 && blocks.stats().used == 1000);
        blocks.deallocate(blocks.allocate());
        CHECK(blocks.stats().used == 1000);
    }
#endif
}

// ---- allocator ----

template <class T>
using list_of = std::list<T, allocator<T>>;

void containers()
{
    std::vector<int, allocator<int>> numbers;
    list_of<int> list;
    std::map<int, std::string, std::less<>, allocator<std::pair<const int, std::string>>> map;
    std::unordered_map<int, wide, std::hash<int>, std::equal_to<>, allocator<std::pair<const int, wide>>> table;
    for (int i = 0; i < 3000; i++) {
        numbers.push_back(i);
        list.push_front(i);
        map.emplace(i, std::string(40, 'x'));
        CHECK(is_aligned(&table[i], 256));
    }
    list_of<int> other = std::move(list);
    other.sort();
    CHECK(other.front() == 0 && numbers.back() == 2999 && map.size() == 3000);
    for (int i = 0; i < 3000; i += 2) {
        map.erase(i);
        table.erase(i);
    }
    CHECK(map.size() == 1500 && table.size() == 1500);
    std::thread([list = std::move(other)]() mutable { list.clear(); }).join();
}

void allocator_semantics()
{
    static_assert(std::allocator_traits<allocator<int>>::is_always_equal::value);
    allocator<int> ints;
    allocator<double> doubles(ints);
    CHECK(ints == doubles && !(ints != doubles));
    int *one = ints.allocate(1), *many = ints.allocate(1000);
    CHECK(pm_pool_of(one) != nullptr && pm_pool_of(many) == nullptr);
    ints.deallocate(one, 1);
    ints.deallocate(many, 1000);
    struct huge {
        char c[100000];
    };
    allocator<huge> huges;
    huge *h = huges.allocate(1);
    CHECK(pm_pool_of(h) == nullptr);
    huges.deallocate(h, 1);
    allocator<char> bytes; // of one size and alignment, so of one pool
    char *byte = bytes.allocate(1);
    one = ints.allocate(1);
    CHECK(pm_pool_of(byte) == pm_pool_of(one));
    bytes.deallocate(byte, 1);
    ints.deallocate(one, 1);
#ifdef __cpp_exceptions
    CHECK(throws<std::bad_alloc>([&] { ints.deallocate(ints.allocate(absurd), 1); }));
#endif
}

void one_pool_s_allocator()
{
    pool blocks(64, PM_SHARING_NONE);
    using nodes = pool_allocator<int>;
    std::list<int, nodes> list{nodes(blocks)}, other{nodes(blocks)};
    for (int i = 0; i < 1000; i++)
        list.push_back(i);
    CHECK(blocks.stats().used >= 1000 && blocks.stats().used <= 1002);
    other.splice(other.begin(), list);
    CHECK(other.size() == 1000 && list.empty());
    list = std::move(other);
    pool second(64);
    std::list<int, nodes> elsewhere{nodes(second)};
    CHECK(elsewhere.get_allocator() != list.get_allocator());
    elsewhere = list; // and its allocator, as this says
    CHECK(elsewhere.size() == 1000 && second.stats().used <= 1 && blocks.stats().used >= 2000);
    elsewhere.clear();
    list.clear();
    std::vector<int, nodes> numbers{nodes(blocks)}; // beyond a block from operator new
    for (int i = 0; i < 1000; i++)
        numbers.push_back(i);
    CHECK(numbers[999] == 999);
    std::map<int, wide, std::less<>, pool_allocator<std::pair<const int, wide>>> map{nodes(blocks)};
    map[1]; // too large, and aligned beyond what the pool is
    CHECK(is_aligned(&map[1], 256) && blocks.stats().used <= 3);
}

// ---- pool_resource ----

// Counts what the resource above it takes.
struct upstream : std::pmr::memory_resource {
    std::size_t blocks = 0, bytes = 0;
    void *do_allocate(std::size_t n, std::size_t align) override
    {
        blocks++, bytes += n;
        return std::pmr::new_delete_resource()->allocate(n, align);
    }
    void do_deallocate(void *p, std::size_t n, std::size_t align) override
    {
        blocks--, bytes -= n;
        std::pmr::new_delete_resource()->deallocate(p, n, align);
    }
    bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override { return this == &other; }
};

struct request {
    unsigned char *p;
    std::size_t size, align;
};

request request_make(std::pmr::memory_resource &resource, std::size_t size, std::size_t align)
{
    auto *p = static_cast<unsigned char *>(resource.allocate(size, align));
    CHECK(is_aligned(p, align));
    std::memset(p, static_cast<int>(size % 251), size);
    return {p, size, align};
}

void request_end(std::pmr::memory_resource &resource, const request &r)
{
    std::size_t same = 0;
    while (same < r.size && r.p[same] == r.size % 251)
        same++;
    CHECK(same == r.size);
    resource.deallocate(r.p, r.size, r.align);
}

// Every size class from both sides, every alignment; each block keeps its content.
void resource_sizes(std::pmr::memory_resource &resource)
{
    static const std::size_t sizes[] = {0,   1,   15,   16,   17,   100,  128,   129,   160,
                                        161, 1000, 4095, 4096, 4097, 32767, 32768, 32769, 100000};
    std::vector<request> made;
    for (std::size_t align = 1; align <= 65536; align *= 2)
        for (std::size_t size : sizes)
            made.push_back(request_make(resource, size, align));
    for (std::size_t size = 0; size < 3000; size += 7)
        made.push_back(request_make(resource, size, 8));
    for (std::size_t i = 0; i < made.size(); i += 2)
        request_end(resource, made[i]);
    for (std::size_t i = 0; i < made.size(); i += 2)
        made[i] = request_make(resource, made[i].size, made[i].align);
    for (const request &r : made)
        request_end(resource, r);
}

void resource_oversize(pm_sharing mode)
{
    upstream above;
    {
        pool_resource resource(mode, &above);
        CHECK(resource.upstream_resource() == &above && resource.sharing() == mode);
        resource_sizes(resource);
        CHECK(above.blocks == 0 && above.bytes == 0);
        void *kept[3];
        for (void *&p : kept)
            p = resource.allocate(100000, 64);
        CHECK(above.blocks == 3);
        resource.deallocate(kept[1], 100000, 64);
        CHECK(above.blocks == 2);
        static_cast<void>(resource.allocate(100));
        resource.release();
        CHECK(above.blocks == 0);
        static_cast<void>(resource.allocate(100)); // it goes on after release()
        static_cast<void>(resource.allocate(50000, 8192));
        CHECK(above.blocks == 1);
    }
    CHECK(above.blocks == 0);
}

void resource_misuse()
{
    pool_resource one, other(PM_SHARING_NONE);
    CHECK(one.is_equal(one) && !one.is_equal(other));
#ifdef __cpp_exceptions
    for (std::size_t size : {absurd, absurd - 16, absurd - 4096, absurd / 2 + 1})
        for (std::size_t align : {std::size_t(1), std::size_t(16), std::size_t(4096)})
            CHECK(throws<std::bad_alloc>([&] { static_cast<void>(one.allocate(size, align)); }));
#endif
}

void resource_containers(std::pmr::memory_resource &resource)
{
    std::pmr::vector<int> vector(&resource);
    std::pmr::list<std::pmr::string> list(&resource);
    std::pmr::unordered_map<int, std::pmr::set<int>> sets(&resource);
    for (int i = 0; i < 2000; i++) {
        vector.push_back(i);
        list.emplace_back("a string beyond the small ones' own room");
        sets[i % 50].insert(i);
    }
    CHECK(vector[1999] == 1999 && list.size() == 2000 && sets[7].size() == 40);
}

// Each option of pool_resource, in each mode.
void resource_options(pm_sharing mode)
{
    upstream above;
    pool_resource_options options;
    options.sharing = mode;
    options.upstream = &above;
    options.largest_block = 1000;
    options.name = "orders";
    {
        pool_resource resource(options);
        void *small = resource.allocate(1000), *large = resource.allocate(1001);
        CHECK(above.blocks == 1 && resource.stats().large == 1 && resource.stats().used == 1024 + 1001);
        CHECK(resource.stats().pools == 1 && resource.stats().capacity >= 1024);
        static pm_stats all; // 15 KiB
        all.struct_size = sizeof all;
        pm_stats_get(&all);
        bool named = false;
        for (std::size_t i = 0; i < all.pools; i++)
            named |= std::strcmp(all.row[i].name, "orders-1024") == 0;
        CHECK(named);
        resource.deallocate(small, 1000);
        resource.deallocate(large, 1001);
        CHECK(resource.trim() > 0 && resource.stats().used == 0 && resource.stats().capacity == 0);
    }
    options.largest_block = 32768;
    options.limit = 100000;
    {
        pool_resource resource(options);
        for (int round = 0; round < 3; round++) {
            void *made[1000];
#ifdef __cpp_exceptions
            std::size_t n = 0;
            CHECK(throws<std::bad_alloc>([&] {
                for (;; n++)
                    made[n] = resource.allocate(1000);
            }));
            CHECK(n == 97 && throws<std::bad_alloc>([&] { static_cast<void>(resource.allocate(50000)); }));
            CHECK(throws<std::bad_alloc>([&] { static_cast<void>(resource.allocate(absurd)); }));
            for (std::size_t i = 0; i < n; i++)
                resource.deallocate(made[i], 1000);
#endif
            made[0] = resource.allocate(70000);
            made[1] = resource.allocate(0);
            resource.deallocate(made[0], 70000);
            resource.deallocate(made[1], 0);
            CHECK(above.blocks == 0);
        }
        static_cast<void>(resource.allocate(70000));
        resource.release();
        static_cast<void>(resource.allocate(70000)); // counted anew
    }
    CHECK(above.blocks == 0 && above.bytes == 0);
    options.limit = 0;
    options.small_from_upstream = true;
    {
        pool_resource resource(options);
        CHECK(resource.sharing() != PM_SHARING_THREADS);
        resource_sizes(resource);
        const std::size_t before = above.bytes;
        CHECK(before > 0);
        for (int i = 0; i < 10000; i++)
            CHECK(pm_pool_of(resource.allocate(64)) == nullptr);
        CHECK(above.bytes > before + 640000 - 200000 && above.bytes < before + 2000000 && above.blocks < 200);
        resource.release();
        CHECK(above.blocks == 0);
        resource_containers(resource);
    }
    CHECK(above.blocks == 0 && above.bytes == 0);
}

void resource_refusals()
{
#ifdef __cpp_exceptions
    CHECK(throws<std::invalid_argument>([] { pool_resource bad(static_cast<pm_sharing>(3)); }));
    CHECK(throws<std::invalid_argument>([] { pool_resource bad(PM_SHARING_NONE, nullptr); }));
    pool_resource_options options;
    options.largest_block = 32769;
    CHECK(throws<std::invalid_argument>([&] { pool_resource bad(options); }));
    pool_resource resource;
    for (std::size_t align = 0; align < 100; align++)
        if (align == 0 || (align & (align - 1)) != 0)
            CHECK(throws<std::invalid_argument>([&] { static_cast<void>(resource.allocate(100, align)); }));
#endif
}

void resource_threads(pm_sharing mode, bool from_upstream = false)
{
    pool_resource_options options;
    options.sharing = mode;
    options.small_from_upstream = from_upstream;
    options.limit = from_upstream ? std::size_t(1) << 30 : 0;
    pool_resource resource(options);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([&resource, t] {
            std::pmr::map<int, std::pmr::string> map(&resource);
            for (int i = 0; i < 3000; i++)
                map.emplace(i * 7 % 1001, std::pmr::string(static_cast<std::size_t>(i * (t + 1) % 3000), 'x', &resource));
            void *large = resource.allocate(50000);
            resource.deallocate(large, 50000);
        });
    for (std::thread &t : threads)
        t.join();
}

// ---- arena_resource ----

void arena_resources()
{
    alignas(16) char buffer[1024];
    arena_resource resource(buffer, sizeof buffer);
    CHECK(resource.allocate(1000) == buffer);
    CHECK(resource.is_equal(resource));
    auto *beyond = static_cast<char *>(resource.allocate(1000)); // it grows beyond the buffer
    CHECK(beyond < buffer || beyond >= buffer + sizeof buffer);
    resource_sizes(resource);
    resource.reset();
    CHECK(resource.allocate(512) == buffer && resource.allocate(512) == buffer + 512);
    CHECK(resource.allocate(1000) == beyond); // the memory stayed
    resource.release();
    CHECK(resource.allocate(1024) == buffer);
    CHECK(resource.allocate(0) != resource.allocate(0));
#ifdef __cpp_exceptions
    CHECK(throws<std::bad_alloc>([&] { static_cast<void>(resource.allocate(absurd)); }));
#endif
    arena_resource growing, ready(1000000);
    resource_sizes(growing);
    resource_containers(growing);
    resource_containers(ready);
    growing.release();
    growing.release();
}

void arena_resource_options_hold()
{
    alignas(16) char buffer[256];
    upstream above;
    {
        arena_resource_options options;
        options.buffer = buffer;
        options.buffer_bytes = sizeof buffer;
        options.upstream = &above;
        options.limit = 20000;
        options.chunk_bytes = 1000;
        arena_resource resource(options);
        CHECK(resource.upstream_resource() == &above);
        CHECK(resource.allocate(200) == buffer && resource.bytes_used() == 200 && above.blocks == 0);
        for (int i = 0; i < 20; i++)
            std::memset(resource.allocate(500), 1, 500);
        CHECK(above.blocks > 5 && above.bytes <= 20000 && resource.bytes_held() == above.bytes + sizeof buffer);
        CHECK(resource.bytes_used() >= 200 + 20 * 500);
#ifdef __cpp_exceptions
        CHECK(throws<std::bad_alloc>([&] { static_cast<void>(resource.allocate(15000)); }));
#endif
        resource.reset();
        CHECK(above.blocks > 0 && resource.bytes_used() == 0);
        resource.release();
        CHECK(above.blocks == 0);
        static_cast<void>(resource.allocate(1000));
    }
    CHECK(above.blocks == 0 && above.bytes == 0);
    arena_resource plain(std::size_t(5000), &above), over(buffer, sizeof buffer, &above);
    static_cast<void>(plain.allocate(10));
    CHECK(above.blocks == 1 && above.bytes > 5000);
    resource_containers(over);
#ifdef __cpp_exceptions
    arena_resource empty(std::size_t(1), std::pmr::null_memory_resource());
    CHECK(throws<std::bad_alloc>([&] { static_cast<void>(empty.allocate(1)); }));
#endif
}

} // namespace

int main()
{
    pool_moves();
    pool_limits();
    arena_use();
    objects();
    objects_end();
    objects_by_their_base();
    visits_that_throw();
    containers();
    allocator_semantics();
    one_pool_s_allocator();
    for (pm_sharing mode : {PM_SHARING_THREADS, PM_SHARING_LOCKED, PM_SHARING_NONE}) {
        resource_oversize(mode);
        resource_options(mode);
        pool_resource resource(mode);
        resource_containers(resource);
    }
    resource_misuse();
    resource_refusals();
    resource_threads(PM_SHARING_LOCKED, true);
    arena_resource_options_hold();
    resource_threads(PM_SHARING_THREADS);
    resource_threads(PM_SHARING_LOCKED);
    arena_resources();
    std::puts("poolmalloc.hpp: all hold");
    return 0;
}
