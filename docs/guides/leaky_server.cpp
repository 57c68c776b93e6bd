// leaky_server.cpp: a server of sessions that forgets one of its two indexes when a session ends.
//   g++ -O2 -g -o leaky_server leaky_server.cpp && poolmalloc run -- ./leaky_server [SECONDS]
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#define CALL __attribute__((noinline))

struct Session {
    std::string user;
    std::vector<char> history;
};

class Server {
    std::unordered_map<int, std::shared_ptr<Session>> by_number;
    std::multimap<std::string, std::shared_ptr<Session>> by_user;
    std::vector<std::string> cache;
    int next = 0;

public:
    CALL void warm(int pages)
    {
        for (int i = 0; i < pages; i++)
            cache.emplace_back(4000, 'p');
    }

    CALL int login(const std::string &user)
    {
        auto session = std::make_shared<Session>();
        session->user = user;
        session->history.reserve(900);
        by_number.emplace(next, session);
        by_user.emplace(user, session);
        return next++;
    }

    CALL std::size_t work(int number)
    {
        std::vector<std::string> answer;
        for (int i = 0; i < 60; i++)
            answer.push_back(by_number.at(number)->user + ": " + std::string(300, 'x'));
        return answer.size();
    }

    CALL void logout(int number) { by_number.erase(number); } // and by_user?
};

int main(int argc, char **argv)
{
    using clock = std::chrono::steady_clock;
    const auto end = clock::now() + std::chrono::duration<double>(argc > 1 ? std::atof(argv[1]) : 60);
    Server server;
    server.warm(10000); // 40 MB that stay, and are no leak
    std::puts("ready");
    std::fflush(stdout);
    for (int n = 0; clock::now() < end; n++) {
        const int session = server.login("user number " + std::to_string(n % 1000) + " of the shop");
        server.work(session);
        server.logout(session);
        if (n % 20 == 0)
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
}
