// Objects of one type from a pool of their own, released by RAII; and nodes of a std::list from shared pools.
#include <poolmalloc.hpp>

#include <cstdio>
#include <list>
#include <string>
#include <utility>
#include <vector>

namespace {

class session
{
public:
    session(std::string user, int number) : user_name(std::move(user)), id(number) { alive++; }
    session(const session &) = delete;
    session &operator=(const session &) = delete;
    ~session() { alive--; }
    std::string label() const { return user_name + " #" + std::to_string(id); }

    static inline int alive = 0;

private:
    std::string user_name;
    int id;
};

using sessions = poolmalloc::object_pool<session>;

} // namespace

int main()
{
    sessions pool(1000); // the first 1000 blocks are made ready
    std::vector<sessions::pointer> open;
    for (int i = 0; i < 100; i++)
        open.push_back(pool.make("user", i));

    sessions::pointer last = std::move(open.back());
    const bool named = last->label() == "user #99";
    open.clear(); // destroys 99 sessions, and gives back their blocks
    const bool one_left = session::alive == 1 && pool.stats().used == 1;
    last.reset();

    std::list<int, poolmalloc::allocator<int>> queue;
    for (int i = 0; i < 1000; i++)
        queue.push_back(i);
    queue.remove_if([](int i) { return i % 2 == 0; });

    const bool right = named && one_left && session::alive == 0 && pool.stats().used == 0 && queue.size() == 500;
    std::printf("%s\n", right ? "every session is gone" : "something is wrong");
    return right ? 0 : 1;
}
