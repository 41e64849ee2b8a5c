// Plain objects and containers, none of which shows its type by itself: what holds them tells, by debug information.
//
//   TYPE case= address= name= [or=]
//
// Each container with 0, 1, 15, 16 and 1,000 elements, moved-from, in globals, thread-locals, on the stack and in blocks.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <list>
#include <malloc.h>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

static char said[1 << 22];
static size_t length;

// The name as a test compares it: without blanks.
static void tell(const char *what, const void *address, const std::string &name, const char *more = "")
{
    length += snprintf(said + length, sizeof said - length, "TYPE case=%s address=%p name=", what, address);
    for (char letter : name)
        said[length++] = letter == ' ' ? '_' : letter;
    length += snprintf(said + length, sizeof said - length, "%s\n", more);
}

namespace net {
struct Address {
    uint32_t ip;
    uint16_t port;
};
struct Session {
    std::string name;
    Address *address;
    Session *next;
    double load;
    std::vector<Session *> peers;
    explicit Session(int number) : name("a session with a long name, number " + std::to_string(number)), address(new Address{1, 2}), next(nullptr), load(number) {}
};
} // namespace net
using net::Session;

struct Tag {
    char text[40];
};
struct Part {
    int weight;
    Tag *tag;
};
struct Node {
    Node *next;
    Node *before;
    Part part;
    long pad[3];
};
union Either {
    Node *node;
    long number;
};
struct Holder {
    Either either;   // which one holds is not told
    void *anything;  // nor is this
    char *bytes;
    Part *parts;
    int *numbers;
    Node **table;
    std::unique_ptr<Tag> own;
    std::unique_ptr<Tag[]> several;
    std::shared_ptr<Session> shared;
    std::shared_ptr<Tag> counted;
    struct {
        Tag *inner[3];
    } unnamed;
};
struct Derived : Part {
    char more[48];
};
struct Open {
    size_t count;
    Part parts[];
};

static std::string part_of(const std::string &what, const std::string &container) { return what + " of " + container; }

template <class Vector> static void tell_vector(const char *what, const Vector &all, const char *name)
{
    if (all.capacity())
        tell(what, all.data(), part_of("buffer", name));
}
static void tell_string(const char *what, const std::string &text)
{
    const char *self = reinterpret_cast<const char *>(&text);
    if (text.data() < self || text.data() >= self + sizeof text)
        tell(what, text.data(), "characters of std::string");
}
// Where a node begins: so many bytes in front of its value.
template <class Value> static const void *node_of(const Value &value, size_t ahead)
{
    return reinterpret_cast<const char *>(std::addressof(value)) - ahead;
}
#ifdef _LIBCPP_VERSION
enum { in_list = 16, in_hash = 16 };
template <class Value> static const void *tree_node(const Value &value)
{
    return node_of(value, alignof(Value) == 4 ? 28 : 32);
}
#else
enum { in_list = 16, in_hash = 8 };
template <class Value> static const void *tree_node(const Value &value) { return node_of(value, 32); }
#endif

template <class Map> static void tell_tree(const char *what, const Map &all, const char *name)
{
    for (const auto &value : all)
        tell(what, tree_node(value), part_of("node", name));
}
template <class Map> static void tell_hash(const char *what, const Map &all, const char *name)
{
    for (const auto &value : all)
        tell(what, node_of(value, in_hash), part_of("node", name));
}
template <class List> static void tell_list(const char *what, const List &all, const char *name)
{
    for (const auto &value : all)
        tell(what, node_of(value, in_list), part_of("node", name));
}
static void tell_session(const char *what, const Session *session)
{
    tell(what, session, "net::Session");
    tell(what, session->address, "net::Address");
    tell_string(what, session->name);
    tell_vector(what, session->peers, "std::vector<net::Session*>");
}

// All containers with so many elements.
struct All {
    std::vector<Session *> sessions;
    std::vector<Part> parts;
    std::vector<std::string> names;
    std::vector<int> numbers;
    std::map<int, Session *> by_number;
    std::map<std::string, Part> by_name;
    std::set<long> set;
    std::multimap<int, std::string> several;
    std::unordered_map<int, Session *> hash;
    std::unordered_map<std::string, Tag *> hash_by_name;
    std::unordered_set<std::string> hash_set;
    std::list<Part> list;
    std::deque<Session *> queue;
    std::string text;
    std::vector<std::vector<int>> nested;
    Session *first = nullptr;

    explicit All(int count) { fill(count); }
    void fill(int count);
    void say(const char *what);
};

void All::fill(int count)
{
    for (int i = 0; i < count; i++) {
        Session *session = new Session(i);
        session->next = first;
        session->peers.push_back(session);
        first = session;
        std::string name = "the name of number " + std::to_string(i);
        sessions.push_back(session);
        parts.push_back({i, new Tag});
        names.push_back(name);
        numbers.push_back(i);
        by_number[i] = session;
        by_name[name] = {i, new Tag};
        set.insert(i);
        several.insert({i / 2, name});
        hash[i] = session;
        hash_by_name[name] = new Tag;
        hash_set.insert(name);
        list.push_back({i, new Tag});
        queue.push_back(session);
        text += 'x';
        nested.push_back({i, i + 1});
    }
}

void All::say(const char *what)
{
    for (const Session *session = first; session; session = session->next)
        tell_session(what, session);
    tell_vector(what, sessions, "std::vector<net::Session*>");
    tell_vector(what, parts, "std::vector<Part>");
    for (const Part &part : parts)
        tell(what, part.tag, "Tag");
    tell_vector(what, names, "std::vector<std::string>");
    for (const std::string &name : names)
        tell_string(what, name);
    tell_vector(what, numbers, "std::vector<int>");
    tell_tree(what, by_number, "std::map<int, net::Session*>");
    tell_tree(what, by_name, "std::map<std::string, Part>");
    for (const auto &entry : by_name) {
        tell_string(what, entry.first);
        tell(what, entry.second.tag, "Tag");
    }
    tell_tree(what, set, "std::set<long>");
    tell_tree(what, several, "std::multimap<int, std::string>");
    for (const auto &entry : several)
        tell_string(what, entry.second);
    tell_hash(what, hash, "std::unordered_map<int, net::Session*>");
    tell_hash(what, hash_by_name, "std::unordered_map<std::string, Tag*>");
    for (const auto &entry : hash_by_name) {
        tell_string(what, entry.first);
        tell(what, entry.second, "Tag");
    }
    tell_hash(what, hash_set, "std::unordered_set<std::string>");
    tell_list(what, list, "std::list<Part>");
    for (const Part &part : list)
        tell(what, part.tag, "Tag");
    tell_string(what, text);
    tell_vector(what, nested, "std::vector<std::vector<int>>");
    for (const auto &inner : nested)
        tell_vector(what, inner, "std::vector<int>");
#ifndef _LIBCPP_VERSION
    for (size_t i = 0; i < queue.size(); i += 512 / sizeof(Session *))
        if (reinterpret_cast<uintptr_t>(&queue[i]) % 16 == 0 && malloc_usable_size(const_cast<void *>(static_cast<const void *>(&queue[i]))) >= 512)
            tell(what, &queue[i], "buffer of std::deque<net::Session*>");
#endif
}

static All global_of_none(0), global_of_one(1), global_of_15(15), global_of_16(16), global_of_1000(1000);
__attribute__((used)) static All *in_a_block;
static thread_local std::vector<Part> *of_thread;
__attribute__((used)) static Holder *holder;
__attribute__((used)) static Node *ring;
__attribute__((used)) static Part *as_base;
__attribute__((used)) static Open *open_end;
static std::vector<Session *> moved_from, moved_to;
static std::map<int, Tag *> moved_map, map_to;

static void make_holder()
{
    holder = new Holder{};
    tell("holder", holder, "Holder");
    holder->either.node = static_cast<Node *>(calloc(1, sizeof(Node)));
    holder->anything = calloc(1, sizeof(Part));
    holder->bytes = static_cast<char *>(calloc(1, 100));
    holder->parts = static_cast<Part *>(calloc(20, sizeof(Part)));
    for (int i = 0; i < 20; i++)
        tell("part's-tag", holder->parts[i].tag = new Tag, "Tag");
    tell("parts", holder->parts, "Part[]");
    holder->numbers = static_cast<int *>(calloc(100, sizeof(int)));
    tell("numbers", holder->numbers, "int[]");
    holder->table = static_cast<Node **>(calloc(10, sizeof(Node *)));
    tell("table", holder->table, "Node*[]");
    for (int i = 0; i < 5; i++)
        tell("table's", holder->table[i] = static_cast<Node *>(calloc(1, sizeof(Node))), "Node");
    holder->own.reset(new Tag);
    tell("unique", holder->own.get(), "Tag");
    holder->shared = std::make_shared<Session>(7);
    tell("in-make-shared", holder->shared->address, "net::Address");
    tell_string("in-make-shared", holder->shared->name);
    holder->counted = std::shared_ptr<Tag>(new Tag);
    tell("shared", holder->counted.get(), "Tag");
    for (Tag *&tag : holder->unnamed.inner)
        tell("unnamed", tag = new Tag, "Tag");
    for (int i = 0; i < 100; i++) {
        Node *node = static_cast<Node *>(calloc(1, sizeof(Node)));
        node->next = ring ? ring : node;
        ring = node;
        tell("ring", node, "Node");
        node->part.tag = new Tag;
        tell("ring's-tag", node->part.tag, "Tag");
    }
    // What is known of it is that it begins with a Part.
    Derived *derived = static_cast<Derived *>(calloc(1, sizeof(Derived)));
    as_base = derived;
    tell("base's-tag", derived->tag = new Tag, "Tag");
    open_end = static_cast<Open *>(calloc(1, sizeof(Open) + 10 * sizeof(Part)));
    tell("open", open_end, "Open");
}

static __attribute__((noinline)) void die_with(std::vector<Session *> &parameter, Session *alone, const All &all)
{
    tell_vector("parameter", parameter, "std::vector<net::Session*>");
    tell_session("parameter", alone);
    fwrite(said, 1, length, stdout);
    fflush(stdout);
    abort();
    asm volatile("" : : "r"(&parameter), "r"(alone), "r"(&all) : "memory");
}

int main()
{
    make_holder();
    All on_the_stack(16);
    in_a_block = new All(100);
    tell("block", in_a_block, "All");
    of_thread = new std::vector<Part>(5);
    tell("thread-local", of_thread, "std::vector<Part>");
    tell_vector("thread-local", *of_thread, "std::vector<Part>");
    for (int i = 0; i < 10; i++)
        moved_from.push_back(new Session(i)), moved_map[i] = new Tag;
    moved_to = std::move(moved_from);
    map_to = std::move(moved_map);
    for (Session *session : moved_to)
        tell_session("moved", session);
    tell_vector("moved", moved_to, "std::vector<net::Session*>");
    tell_tree("moved", map_to, "std::map<int, Tag*>");
    std::vector<Session *> parameter;
    parameter.push_back(new Session(3));
    tell_session("by-parameter", parameter[0]);
    // Freed again: blocks of the same sizes, which others had.
    for (int i = 0; i < 100; i++)
        delete new Tag;
    global_of_none.say("0");
    global_of_one.say("1");
    global_of_15.say("15");
    global_of_16.say("16");
    global_of_1000.say("1000");
    on_the_stack.say("stack");
    in_a_block->say("block");
    die_with(parameter, new Session(9), on_the_stack);
}
