// Programs in C++ in styles of servers, caches and interpreters: part of the second set of programs that heapcheck was not made on
// (tools/provenance.py --set second), measured before any change. Output as that of provenance.cc. One case a run; beside: an
// overrun that nobody meets.
#include "cases.h"

#include <atomic>
#include <coroutine>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

// ---- weak_ptr: the object of a lock() that was let go ----
struct Session {
    virtual ~Session() {}
    virtual int weight() const { return number + (int)user.size(); }
    int number = 0;
    std::string user;
};
ALONE static int weight_of(const Session *session) { return session->weight(); }
static void f_lock_let_go()
{
    auto session = std::make_shared<Session>();
    std::weak_ptr<Session> weak = session;
    Session *raw = weak.lock().get();
    session.reset();
    weak.reset();
    // The next one of that size takes the place.
    auto *samples = (double *)malloc(sizeof(Session) + 16);
    for (unsigned i = 0; i < (sizeof(Session) + 16) / 8; i++)
        samples[i] = 1.5 * i;
    hold(samples);
    truth("freed", (char *)raw - 16, raw);
    sink += weight_of(raw);
    _exit(95);
}

// ---- std::function: a task that kept `this` ----
struct Decoder {
    long fed = 0;
    void feed(int byte) { fed += byte; }
};
struct Connection {
    Decoder *decoder;
    long bytes = 0;
    explicit Connection(Decoder *of) : decoder(of) {}
    std::function<void()> later(int byte)
    {
        return [this, byte] { decoder->feed(byte); };
    }
};
ALONE static void drain(std::deque<std::function<void()>> &tasks)
{
    for (; !tasks.empty(); tasks.pop_front())
        tasks.front()();
}
static void f_task_keeps_this()
{
    static Decoder decoder;
    std::deque<std::function<void()>> tasks;
    auto *first = new Connection(&decoder), *second = new Connection(&decoder), *third = new Connection(&decoder);
    for (auto *it : {first, second})
        tasks.push_back(it->later(7));
    delete third;
    delete second;
    truth("freed", second, second);
    drain(tasks);
    _exit(95);
}

// ---- a coroutine: resumed after its frame was destroyed ----
struct Generator {
    struct promise_type {
        long value = 0;
        Generator get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        std::suspend_always yield_value(long it)
        {
            value = it;
            return {};
        }
        void return_void() {}
        void unhandled_exception() {}
    };
    std::coroutine_handle<promise_type> handle;
};
static Generator squares(long from)
{
    for (long i = from;; i++)
        co_yield i *i;
}
ALONE static long next_of(std::coroutine_handle<Generator::promise_type> handle)
{
    handle.resume();
    return handle.promise().value;
}
static void f_coroutine_destroyed()
{
    auto one = squares(2), two = squares(7);
    sink += next_of(one.handle) + next_of(two.handle);
    two.handle.destroy();
    one.handle.destroy();
    truth("freed", one.handle.address(), one.handle.address());
    sink += next_of(one.handle);
    _exit(95);
}

// ---- a map's end, used as if it were an entry ----
struct Route {
    std::string path;
    long hits;
};
ALONE static long hits_of(const std::unordered_map<std::string, Route *> &routes, const char *path)
{
    return routes.find(path)->second->hits;
}
static void n_end_of_map()
{
    std::unordered_map<std::string, Route *> routes;
    for (const char *path : {"/", "/index", "/login"})
        routes[path] = new Route{path, 1};
    truth("null", nullptr);
    sink += hits_of(routes, "/logout");
    _exit(95);
}

// ---- std::span with a count of bytes ----
struct Item {
    long number;
    const Route *route;
};
ALONE static long total(std::span<const Item> items)
{
    long hits = 0;
    for (const auto &item : items)
        hits += item.route->hits;
    return hits;
}
static void w_span_of_bytes()
{
    static const Route route{"/", 3};
    void *one, *two;
    pair(8 * sizeof(Item), &one, &two);
    auto *items = (Item *)one;
    for (int i = 0; i < 8; i++)
        items[i] = {i, &route};
    memset(two, 'k', 8 * sizeof(Item));
    hold(one);
    hold(two);
    truth("wild", one, &items[8].route);
    sink += total({items, 8 * sizeof(Item)});
    _exit(95);
}

// ---- a cache: the map keeps an iterator of an entry that was thrown out ----
struct Cache {
    std::list<std::pair<int, std::string>> entries;
    std::unordered_map<int, std::list<std::pair<int, std::string>>::iterator> places;
    void put(int key, std::string text)
    {
        entries.emplace_front(key, std::move(text));
        places[key] = entries.begin();
        if (entries.size() > 4)
            entries.pop_back(); // and not from `places`
    }
    ALONE const std::string &get(int key)
    {
        auto at = places.at(key);
        entries.splice(entries.begin(), entries, at);
        return at->second;
    }
};
static void f_evicted_entry()
{
    auto *cache = new Cache;
    hold(cache);
    for (int i = 0; i < 4; i++)
        cache->put(i, "text");
    const void *last = *(void **)&cache->places[0];
    cache->put(7, "text");
    cache->put(8, "text");
    const void *evicted = *(void **)&cache->places[1];
    truth("freed", evicted, evicted);
    truth("freed", last, last);
    sink += cache->get(1).size();
    sink += cache->get(0).size();
    _exit(95);
}

// ---- moved from ----
struct Tls {
    int version = 3;
    char peer[60];
};
struct Stream {
    long id;
    std::unique_ptr<Tls> tls;
};
ALONE static int version_of(const Stream *stream) { return stream->tls->version; }
static void n_moved_from()
{
    auto *old = new Stream{1, std::make_unique<Tls>()};
    auto *now = new Stream{2, std::move(old->tls)};
    hold(old);
    hold(now);
    truth("null", old, &old->tls);
    sink += version_of(now) + version_of(old);
    _exit(95);
}

// ---- an interpreter: a number taken for a text ----
struct Value {
    enum Tag : char { NUMBER, TEXT } tag;
    union {
        double number;
        const std::string *text;
    };
};
struct Machine {
    std::vector<Value> stack;
    ALONE size_t add_texts()
    {
        size_t length = 0;
        for (const auto &value : stack)
            length += value.text->size();
        return length;
    }
};
static void w_number_as_text()
{
    static const std::string text = "a text";
    auto *machine = new Machine;
    hold(machine);
    machine->stack.reserve(8);
    for (int i = 0; i < 3; i++) {
        Value value{Value::TEXT, {}};
        value.text = &text;
        machine->stack.push_back(value);
    }
    Value number{Value::NUMBER, {}};
    number.number = 2.718281828;
    machine->stack.push_back(number);
    truth("wild", machine->stack.data(), &machine->stack[3].text);
    sink += machine->add_texts();
    _exit(95);
}

// ---- memset over an object with virtual functions ----
struct Plan {
    Plan() { clear(); }
    ALONE void clear() { memset((void *)this, 0, sizeof *this); }
    virtual ~Plan() {}
    virtual long cost() const { return steps; }
    long steps, rows;
};
ALONE static long cost_of(const Plan *plan) { return plan->cost(); }
static void n_memset_of_this()
{
    auto *plan = new Plan;
    hold(plan);
    plan->clear();
    truth("null", plan, plan);
    sink += cost_of(plan);
    _exit(95);
}

// ---- a pool that gives a slot out twice ----
struct Particle {
    const double *mass;
    double speed[3];
};
struct Pool {
    std::vector<Particle> slots = std::vector<Particle>(32);
    std::vector<Particle *> spare;
    Pool()
    {
        for (auto &slot : slots)
            spare.push_back(&slot);
    }
    Particle *take()
    {
        auto *slot = spare.back();
        spare.pop_back();
        return slot;
    }
    void give(Particle *slot) { spare.push_back(slot); }
};
ALONE static double mass_of(const Particle *particle) { return *particle->mass * particle->speed[0]; }
static void w_slot_given_twice()
{
    static const double mass = 2;
    auto *pool = new Pool;
    hold(pool);
    auto *one = pool->take();
    pool->give(one);
    pool->give(one);
    auto *two = pool->take();
    auto *three = (double *)pool->take();
    *two = {&mass, {1, 2, 3}};
    for (int i = 0; i < 4; i++)
        three[i] = 0.25 * (i + 1);
    truth("wild", pool->slots.data(), two);
    sink += (long)mass_of(two);
    _exit(95);
}

// ---- threads: a job that its owner deleted ----
struct Job {
    std::function<long()> run;
    std::string name;
};
static void f_job_of_thread()
{
    static long input = 3;
    static std::atomic<int> turn;
    auto *job = new Job{[pointer = &input] { return *pointer; }, "job"};
    auto *other = new Job{nullptr, "other"};
    std::thread worker([job] {
        while (turn.load() != 1)
            std::this_thread::yield();
        sink += job->run();
        _exit(95);
    });
    delete other;
    delete job;
    truth("freed", job, job);
    turn.store(1);
    worker.join();
}

// ---- a message whose type was never set ----
struct Message {
    long sequence, sent;
    unsigned type;
    char body[28];
};
using Handler = long (*)(const Message *);
static long on_data(const Message *message) { return message->sequence; }
static Handler handlers[4] = {on_data, on_data, on_data, on_data};
ALONE static long dispatch(const Message *message) { return handlers[message->type](message); }
static void u_type_of_message()
{
    stir(sizeof(Message), 3, 0x5d);
    auto *message = (Message *)malloc(sizeof(Message));
    message->sequence = 1;
    message->sent = 2;
    strcpy(message->body, "hello");
    hold(message);
    truth("uninitialised", message, &message->type);
    sink += dispatch(message);
    _exit(95);
}

static const Case cases[] = {
    CASE(f_lock_let_go), CASE(f_task_keeps_this), CASE(f_coroutine_destroyed), CASE(n_end_of_map), CASE(w_span_of_bytes),
    CASE(f_evicted_entry), CASE(n_moved_from), CASE(w_number_as_text), CASE(n_memset_of_this), CASE(w_slot_given_twice),
    CASE(f_job_of_thread), CASE(u_type_of_message),
};
int main(int count, char **arguments)
{
    return run_case(cases, sizeof cases / sizeof cases[0], count, arguments);
}
