// At a limit whose overflow fails, new throws: the C++ runtime is found without memory of the pools'.
#include <cstddef>
#include <new>

#include "check.h"

struct Node {
    Node *next;
    char bytes[1000];
};

int main()
{
    Node *nodes = nullptr;
    bool thrown = false;
    try {
        for (std::size_t i = 0; i < 1000000; i++)
            nodes = new Node{nodes, {}};
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown && nodes && !new (std::nothrow) Node);
    while (nodes) {
        Node *next = nodes->next;
        delete nodes;
        nodes = next;
    }
    delete new Node;
    return 0;
}
