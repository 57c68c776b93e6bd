// operators: the C++ operators through containers, the way programs use them: nodes of a map with
// strings, a list, vectors of owned objects, over-aligned objects, arrays.
// Sizes: 32 to 512 B, fixed by the types. One operation is one new and its delete.
// Idea: the container tests of allocator shoot-outs; the containers read back what they store.
#include "common.h"

#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

struct alignas(64) vector_block { double value[16]; };
struct shape { virtual ~shape() = default; virtual int area() const = 0; };
struct square : shape { int side; explicit square(int s) : side(s) {} int area() const override { return side * side; } };
struct label : shape {
    std::string text;
    explicit label(int s) : text(40, static_cast<char>(s)) {}
    int area() const override { return static_cast<int>(text.size()); }
};

constexpr unsigned round_entries = 300;
constexpr unsigned round_operations = round_entries * 6;  // map node, its string, list node, 1.5 shapes, aligned, array

std::uint64_t round_run(std::uint64_t &random)
{
    std::map<std::uint64_t, std::string> names;
    std::list<std::uint64_t> queue;
    std::vector<std::unique_ptr<shape>> shapes;
    std::vector<std::unique_ptr<vector_block>> aligned;
    std::uint64_t sum = 0;
    for (unsigned i = 0; i < round_entries; i++) {
        std::uint64_t r = random_next(&random);
        names.emplace(r, std::string(32 + r % 64, 'x'));
        queue.push_back(r);
        if (i % 2)
            shapes.push_back(std::make_unique<square>(static_cast<int>(i)));
        else
            shapes.push_back(std::make_unique<label>(static_cast<int>(i % 64)));
        aligned.push_back(std::make_unique<vector_block>());
        std::unique_ptr<char[]> array(new char[64 + r % 256]);
        array[0] = 1;
        sum += static_cast<std::uint64_t>(array[0]);
    }
    for (const auto &s : shapes)
        sum += static_cast<std::uint64_t>(s->area());
    while (!queue.empty()) {
        sum += names.erase(queue.front());
        queue.pop_front();
    }
    return sum;
}

void run(worker *w)
{
    const std::uint64_t expected = 2 * round_entries + 40 * round_entries / 2 + 4499950;  // odd squares below 300
    while (worker_grant(w, round_operations)) {
        if (round_run(w->random) != expected)
            bench_fail("wrong sum");
        w->done += round_operations;
    }
}

}  // namespace

const workload bench_workload = [] {
    workload work{};
    work.name = "operators";
    work.purpose = "C++ containers over operator new and delete.";
    work.run = run;
    work.allocations_per_operation = 1;
    work.defaults.threads = 1;
    work.defaults.operations = 3000000;
    return work;
}();
