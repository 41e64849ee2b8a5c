// A healthy C++ program: strings, containers, exceptions and arrays in the heap of glibc. It aborts.
#include "common.h"
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

struct Node {
    virtual ~Node() = default;
    std::string name;
    std::vector<std::unique_ptr<Node>> children;
};

static std::unique_ptr<Node> tree(int depth)
{
    std::unique_ptr<Node> node(new Node);
    node->name = std::string(static_cast<size_t>(depth * 9 + 3), 'n');
    for (int i = 0; depth > 0 && i < 5; i++)
        node->children.push_back(tree(depth - 1));
    return node;
}

int main()
{
    std::map<std::string, std::vector<int>> table;
    for (int i = 0; i < 500; i++)
        table["a key that is long enough for the heap " + std::to_string(i)].resize(static_cast<size_t>(i % 50));
    for (int i = 0; i < 500; i += 3)
        table.erase("a key that is long enough for the heap " + std::to_string(i));
    std::unique_ptr<Node> root = tree(4);
    root->children.erase(root->children.begin() + 2);
    try {
        throw std::runtime_error("caught");
    } catch (const std::exception &error) {
        root->name += error.what();
    }
    say("HEALTHY");
    die_by_abort();
}
