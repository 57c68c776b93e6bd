// The tasks of pools.cpp: what each contender does, and how that is timed.
#pragma once

#include "contenders.hpp"

#include "workloads/common.h"

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <sched.h>
#include <sys/mman.h>
#include <thread>
#include <unordered_map>
#include <utility>

namespace pools {

struct outcome {
    double figure;            // ns an operation, or bytes a block
    std::uint64_t operations; // 0: not done
};

inline constexpr std::size_t block_bytes = 64, live = 1024;

inline void *memory_shared(std::size_t bytes)
{
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        bench_fail("cannot map memory");
    return p;
}

// A program writes into what it takes.
inline void *written(void *p)
{
    std::memcpy(p, &p, sizeof p);
    return p;
}

// Rounds for the time given, the first of them to warm up. The median counts: of two threads at one lock the fastest rounds are
// those in which one of them had no processor.
template <class Round>
outcome timed(std::uint64_t operations_a_round, Round round)
{
    enum { ROUNDS_MOST = 1 << 15 };
    static double ns[ROUNDS_MOST];
    round();
    const std::uint64_t begin = time_ns(), length = static_cast<std::uint64_t>(options.seconds * 1e9);
    std::size_t n = 0;
    for (std::uint64_t before = begin, now; n < ROUNDS_MOST && (n < 3 || before - begin < length); before = now) {
        round();
        now = time_ns();
        ns[n++] = static_cast<double>(now - before);
    }
    std::qsort(ns, n, sizeof *ns, [](const void *a, const void *b) {
        const double x = *static_cast<const double *>(a), y = *static_cast<const double *>(b);
        return x < y ? -1 : x > y ? 1 : 0;
    });
    return {ns[n / 2] / static_cast<double>(operations_a_round), n * operations_a_round};
}

// ---- blocks ----

// Of `live` blocks each in turn, in a random order, is given back and another taken.
template <class C>
outcome churn()
{
    static std::uint16_t order[live];
    static void *block[live];
    C contender(block_bytes);
    std::uint64_t random = 1;
    for (std::size_t i = 0; i < live; i++) {
        block[i] = written(contender.take());
        const std::size_t j = random_below(&random, i + 1);
        order[i] = order[j];
        order[j] = static_cast<std::uint16_t>(i);
    }
    return timed(live, [&] {
        for (std::size_t i : order) {
            contender.give(block[i]);
            block[i] = written(contender.take());
        }
    });
}

template <class C>
outcome bulk()
{
    static void *block[live];
    C contender(block_bytes);
    return timed(live, [&] {
        if constexpr (C::in_bulk) {
            contender.take_bulk(block, live);
            for (void *p : block)
                written(p);
            contender.give_bulk(block, live);
        } else {
            for (void *&p : block)
                p = written(contender.take());
            for (void *p : block)
                contender.give(p);
        }
    });
}

template <class C>
outcome reset()
{
    C contender(block_bytes);
    return timed(10 * live, [&] {
        for (std::size_t i = 0; i < 10 * live; i++)
            written(contender.take());
        contender.reset();
    });
}

// Two threads: each gives back what the other has taken, handed over by the batch, so that the handing over hardly counts.
struct mailbox {
    alignas(128) std::atomic<bool> full{false};
    void *block[256];
};

// The other thread is a little late, or, after so many looks, has lost its processor.
inline void wait_for(const mailbox &box, bool full)
{
    for (unsigned looks = 0; box.full.load(std::memory_order_acquire) != full; looks++)
        if (looks > 10000)
            sched_yield();
}

template <class C>
void threads_half(C &contender, mailbox *out, mailbox *in, std::uint64_t batches)
{
    for (std::uint64_t i = 0; i < batches + 4; i++) {
        mailbox &to = out[i % 4], &from = in[i % 4];
        if (i >= 4) { // taken four batches ago
            wait_for(from, true);
            for (void *p : from.block)
                contender.give(p);
            from.full.store(false, std::memory_order_release);
        }
        if (i < batches) {
            wait_for(to, false);
            for (void *&p : to.block)
                p = written(contender.take());
            to.full.store(true, std::memory_order_release);
        }
    }
}

template <class C>
outcome threads()
{
    static mailbox box[2][4];
    constexpr std::uint64_t batches = 50;
    cpu_set_t all; // the launcher pins single-threaded cases: two threads need two processors
    std::memset(&all, 0xff, sizeof all);
    sched_setaffinity(0, sizeof all, &all);
    C contender(block_bytes);
    return timed(2 * batches * 256, [&] {
        std::thread other([&] { threads_half(contender, box[1], box[0], batches); });
        threads_half(contender, box[0], box[1], batches);
        other.join();
    });
}

// ---- containers ----

template <class Container>
std::uint64_t walk(const Container &c)
{
    std::uint64_t sum = 0;
    for (const auto &[key, value] : c)
        sum += key + value;
    return sum;
}

inline constexpr std::uint64_t elements = 2000;
using element = std::pair<std::uint64_t, std::uint64_t>;

inline void sum_check(std::uint64_t sum)
{
    if (sum != elements * (elements - 1))
        bench_fail("wrong sum");
}

template <class Map>
void map_round(Map &map)
{
    for (std::uint64_t i = 0; i < elements; i++)
        map.emplace(i * 757 % elements, i * 757 % elements); // 757 and 2000 have no common factor
    sum_check(walk(map));
    for (std::uint64_t i = 0; i < elements; i++)
        map.erase(i * 373 % elements);
}

template <class C>
outcome list()
{
    C contender(block_bytes);
    auto allocator = contender.template allocator<element>();
    return timed(elements, [&] {
        std::list<element, decltype(allocator)> list(allocator);
        for (std::uint64_t i = 0; i < elements; i++)
            list.emplace_back(i, i);
        sum_check(walk(list));
        while (!list.empty()) {
            list.pop_front();
            if (!list.empty())
                list.pop_back();
        }
        if constexpr (!C::gives_back)
            contender.reset();
    });
}

template <class C>
outcome map()
{
    C contender(block_bytes);
    auto allocator = contender.template allocator<std::pair<const std::uint64_t, std::uint64_t>>();
    return timed(elements, [&] {
        {
            std::map<std::uint64_t, std::uint64_t, std::less<>, decltype(allocator)> map(allocator);
            map_round(map);
        }
        if constexpr (!C::gives_back)
            contender.reset();
    });
}

template <class C>
outcome unordered_map()
{
    C contender(block_bytes);
    auto allocator = contender.template allocator<std::pair<const std::uint64_t, std::uint64_t>>();
    return timed(elements, [&] {
        {
            std::unordered_map<std::uint64_t, std::uint64_t, std::hash<std::uint64_t>, std::equal_to<>, decltype(allocator)> map(
                allocator);
            map_round(map);
        }
        if constexpr (!C::gives_back)
            contender.reset();
    });
}

// ---- arenas, memory ----

template <class C>
outcome arena()
{
    static std::uint8_t size[live];
    std::uint64_t random = 1;
    for (std::uint8_t &s : size)
        s = static_cast<std::uint8_t>(8 + random_below(&random, 120));
    C contender(block_bytes);
    return timed(live, [&] {
        for (std::size_t s : size)
            written(contender.room(s));
        contender.reset();
    });
}

// Resident bytes a block, of a million nodes of 40 bytes.
template <class C>
outcome memory()
{
    constexpr std::uint64_t nodes = 1000000;
    const std::uint64_t before = rss_kib();
    C contender(40);
    for (std::uint64_t i = 0; i < nodes; i++)
        std::memset(contender.take(), 1, 40);
    return {static_cast<double>((rss_kib() - before) * 1024) / static_cast<double>(nodes), nodes};
}

} // namespace pools
