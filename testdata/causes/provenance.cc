// Where the value came from that a process dies of: one case a run, each in another style, with any malloc.
//
//   program CASE [beside]      beside: an overrun that nobody meets, in blocks of another size
//   NAME ...                   the name of the case
//   CLASS uninitialised | freed | overrun | wild | null | refused | stack | own
//   BLOCK 0x..                 the block whose use, or whose writer, is the end of the chain; none for values that no block has
//   WORD 0x..                  the word that the value at fault stands in, where one is known
#include "cases.h"

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <pthread.h>
#include <string>
#include <vector>

// ---- uninitialised ----
struct Route {
    struct Route *via;
    const char *name;
    long cost;
    void (*changed)(struct Route *);
    long more[3];
};
ALONE static long cost_of(struct Route *route) { return route->via->cost + route->cost; }
static void u_first_member()
{
    stir(sizeof(Route), 5, 0x11);
    auto *route = (Route *)malloc(sizeof(Route));
    route->cost = 4;
    hold(route);
    truth("uninitialised", route, &route->via);
    sink += cost_of(route);
}
struct Table {
    long used;
    struct Route *rows[20];
};
ALONE static long sum_rows(struct Table *table, int count)
{
    long sum = 0;
    for (int i = 0; i < count; i++)
        sum += table->rows[i]->cost;
    return sum;
}
static void u_row_of_table()
{
    void *old[4];
    for (auto &block : old) {
        block = malloc(sizeof(Table));
        memset(block, 0x2b, sizeof(Table));
        hold(block);
    }
    static Route one;
    auto *table = (Table *)malloc(sizeof(Table));
    hold(table);
    free(old[1]);
    auto *again = (Table *)malloc(sizeof(Table));
    again->used = 3;
    truth("uninitialised", again);
    for (int i = 1; i < 3; i++)
        again->rows[i] = &one;
    // The first row lies behind the words that an allocator uses itself: what the former owner left.
    sink += sum_rows(again, 3);
    (void)table;
}
class Parser
{
public:
    explicit Parser(int depth) : depth_(depth) {}
    ALONE long next() const { return cursor_[depth_]; }

private:
    const long *cursor_;
    int depth_;
    char state_[40];
};
static void u_member_of_class()
{
    stir(sizeof(Parser), 4, 0x33);
    auto *parser = new Parser(3);
    hold(parser);
    truth("uninitialised", parser, parser);
    sink += parser->next();
}
struct Chain {
    Chain *next;
    long value;
    char pad[24];
};
ALONE static long walk(const Chain *chain)
{
    long sum = 0;
    for (; chain; chain = chain->next)
        sum += chain->value;
    return sum;
}
static void u_end_of_list()
{
    stir(sizeof(Chain), 6, 0x44);
    Chain *head = nullptr;
    for (int i = 0; i < 3; i++) {
        auto *one = (Chain *)malloc(sizeof(Chain));
        one->value = i;
        if (head)
            one->next = head;
        head = one;
        hold(one);
        if (i == 0)
            truth("uninitialised", one, &one->next);
    }
    sink += walk(head);
}
static void u_pointer_to_function()
{
    stir(96, 3, 0x55);
    auto **table = (void (**)())malloc(96);
    for (int i = 2; i < 12; i++)
        table[i] = nullptr;
    hold((void *)table);
    truth("uninitialised", table);
    table[0]();
}
struct Job {
    std::function<long(long)> *work;
    long left;
    char name[48];
};
ALONE static long run_job(Job *job)
{
    long done = 0;
    while (job->left-- > 0)
        done += (*job->work)(job->left);
    return done;
}
static void u_function_object()
{
    stir(sizeof(Job), 5, 0x66);
    Job *job = static_cast<Job *>(malloc(sizeof(Job)));
    job->left = 2;
    strcpy(job->name, "a job that was not given its work");
    hold(job);
    truth("uninitialised", job, &job->work);
    sink += run_job(job);
}
static void u_large()
{
    char *first = (char *)malloc(6000), *apart = (char *)malloc(40);
    memset(first, 0x77, 6000);
    hold(apart);
    free(first);
    auto **words = (long **)malloc(6000);
    hold(words);
    truth("uninitialised", words, words);
    sink += *words[0];
}

// ---- freed ----
ALONE static long use_route(Route *route) { return route->via->cost; }
static void f_first_word()
{
    auto *one = (Route *)calloc(1, sizeof(Route)), *two = (Route *)calloc(1, sizeof(Route));
    one->via = two;
    two->via = one;
    hold(one);
    free(two);
    free(one);
    truth("freed", one, &one->via);
    sink += use_route(one);
}
struct Window {
    virtual ~Window() {}
    virtual long draw() const { return 1; }
    long x = 3, y = 4;
};
struct Button : Window {
    long draw() const override { return x * y; }
    std::string label = "a label that is longer than sixteen";
};
ALONE static long draw(const Window *window) { return window->draw(); }
static void f_virtual_call()
{
    Window *window = new Button, *other = new Button;
    hold(other);
    delete other;
    delete window;
    truth("freed", window, window);
    sink += draw(window);
}
static void f_list_loop()
{
    Chain *head = nullptr;
    for (int i = 0; i < 12; i++) {
        auto *one = (Chain *)malloc(sizeof(Chain));
        one->value = i;
        one->next = head;
        head = one;
    }
    said("CLASS freed\n");
    // The allocator's own word is taken for the next link.
    for (Chain *one = head; one; one = one->next) {
        said("BLOCK %p\n", (void *)one);
        free(one);
    }
    sink += walk(head);
}
struct Session {
    long number;
    Session **slot;
    std::string *user;
    long pad[4];
};
ALONE static size_t user_of(const Session *session) { return session->user->size() + session->user->at(0); }
static void f_member_left()
{
    auto *session = new Session{7, nullptr, new std::string("the user of a session that has gone"), {}};
    auto *user = session->user;
    hold(session);
    truth("freed", user);
    delete user;
    // Its characters' pointer is the allocator's word now.
    sink += (long)user_of(session);
}
static void f_old_buffer()
{
    std::vector<Route *> routes;
    static Route one;
    for (int i = 0; i < 8; i++)
        routes.push_back(&one);
    Route **first = routes.data();
    truth("freed", first, first);
    routes.reserve(200);
    sink += (*first)->cost;
}
struct Context {
    void (*done)(Context *);
    long code;
    char text[24];
};
static void finish(Context *it) { sink += it->code; }
ALONE static void complete(Context *context) { context->done(context); }
static void f_callback()
{
    auto *context = (Context *)malloc(sizeof(Context)), *other = (Context *)malloc(sizeof(Context));
    context->done = other->done = finish;
    context->code = 1;
    complete(context);
    free(other);
    free(context);
    truth("freed", context, &context->done);
    complete(context);
}
struct Shared {
    std::atomic<int> count;
    int kind;
    Route *route;
    char data[40];
};
ALONE static void release(Shared *shared)
{
    if (--shared->count == 0)
        free(shared);
}
ALONE static long kind_of(Shared **all, int index) { return *(long *)(*(char **)all[index]); }
static void f_counted()
{
    auto *shared = (Shared *)calloc(1, sizeof(Shared)), *other = (Shared *)calloc(1, sizeof(Shared));
    shared->count = other->count = 1;
    Shared *all[2] = {shared, other};
    release(other);
    release(shared);
    truth("freed", shared, shared);
    sink += kind_of(all, 0);
}
struct Tree {
    Tree *left, *right;
    long key;
    char text[8];
};
ALONE static long find(const Tree *tree, long key)
{
    while (tree->key != key)
        tree = key < tree->key ? tree->left : tree->right;
    return tree->text[0];
}
static void f_tree()
{
    auto *root = (Tree *)calloc(1, sizeof(Tree)), *leaf = (Tree *)calloc(1, sizeof(Tree)), *other = (Tree *)calloc(1, sizeof(Tree));
    root->key = 50;
    root->left = leaf;
    leaf->key = 20;
    leaf->left = leaf->right = other;
    hold(root);
    free(other);
    free(leaf);
    truth("freed", leaf);
    sink += find(root, 5);
}
struct Worker {
    Route *route;
    long turns;
    char more[64];
};
static void *work(void *argument)
{
    auto *worker = (Worker *)argument;
    usleep(30000);
    return (void *)worker->route->cost;
}
static void f_thread()
{
    auto *worker = (Worker *)calloc(1, sizeof(Worker)), *other = (Worker *)calloc(1, sizeof(Worker));
    static Route one;
    worker->route = other->route = &one;
    pthread_t thread;
    pthread_create(&thread, nullptr, work, worker);
    free(other);
    free(worker);
    truth("freed", worker, worker);
    pthread_join(thread, nullptr);
}
static void f_map_value()
{
    std::map<int, Context *> all;
    for (int i = 0; i < 5; i++) {
        all[i] = (Context *)malloc(sizeof(Context));
        all[i]->done = finish;
    }
    free(all[1]);
    free(all[3]);
    truth("freed", all[3], all[3]);
    for (auto &entry : all)
        if (entry.first > 2)
            complete(entry.second);
}

// ---- overrun ----
static void o_text()
{
    void *name, *next;
    pair(56, &name, &next);
    auto *route = (Route *)next;
    memset(route, 0, 56);
    strcpy((char *)name, "short");
    hold(name);
    hold(route);
    truth("overrun", name, route);
    for (int i = 0; i < 8; i++)
        strcat((char *)name, "/a/part/of/p");
    sink += cost_of(route);
}
static void o_numbers()
{
    void *numbers, *next;
    pair(64, &numbers, &next);
    auto **pointers = (Route **)next;
    static Route one;
    for (int i = 0; i < 8; i++)
        pointers[i] = &one;
    hold(numbers);
    hold(pointers);
    truth("overrun", numbers, pointers);
    auto *all = (uint32_t *)numbers;
    for (int i = 0; i < 24; i++)
        all[i] = 1000000 + i;
    sink += pointers[0]->cost;
}
static void o_fill()
{
    void *buffer, *next;
    pair(120, &buffer, &next);
    auto *context = (Context *)next;
    context->done = finish;
    hold(buffer);
    hold(context);
    truth("overrun", buffer, context);
    memset(buffer, 0xee, 160);
    complete(context);
}
static void o_object()
{
    void *buffer, *next;
    pair(sizeof(Button), &buffer, &next);
    Window *window = new (next) Button;
    hold(buffer);
    hold(window);
    truth("overrun", buffer, window);
    for (size_t i = 0; i < sizeof(Button) + 24; i++)
        ((char *)buffer)[i] = 'A' + i % 26;
    sink += draw(window);
}
static void o_elements()
{
    void *buffer, *next;
    pair(96, &buffer, &next);
    auto *route = (Route *)next;
    memset(next, 0, 96);
    hold(buffer);
    hold(route);
    truth("overrun", buffer, route);
    auto *points = (double *)buffer;
    for (int i = 0; i <= 16; i++)
        points[i] = 0.5 + i;
    sink += cost_of(route);
}

// ---- wild ----
static void w_text_in_block()
{
    auto *route = (Route *)calloc(1, sizeof(Route));
    hold(route);
    memcpy(route, "a line of text!", 15);
    truth("wild", nullptr, &route->via);
    sink += cost_of(route);
}
static void w_cut()
{
    auto *route = (Route *)calloc(1, sizeof(Route)), *other = (Route *)calloc(1, sizeof(Route));
    hold(other);
    route->via = (Route *)(uintptr_t)(uint32_t)(uintptr_t)other;
    hold(route);
    truth("wild", nullptr, &route->via);
    sink += cost_of(route);
}
ALONE static long element(const long *all, long index) { return all[index]; }
static void w_index()
{
    auto *all = (long *)calloc(10, sizeof(long));
    hold(all);
    volatile long far = 1L << 34;
    truth("wild", nullptr);
    sink += element(all, far);
}
static void w_handle()
{
    static uintptr_t handles[4] = {0xdead0001, 0xdead0002, 0xdead0003, 0xdead0004};
    volatile int which = 2;
    truth("wild", nullptr, &handles[2]);
    sink += cost_of((Route *)handles[which]);
}
static void w_negative()
{
    auto *route = (Route *)calloc(1, sizeof(Route));
    route->via = (Route *)-1L;
    hold(route);
    truth("wild", nullptr, &route->via);
    sink += cost_of(route);
}
static char *volatile literal = (char *)"a constant";
static void w_constant()
{
    truth("wild", nullptr);
    *literal = 'b';
}

// ---- null ----
static Route *volatile none;
static void n_global()
{
    truth("null", nullptr, (void *)&none);
    sink += none->cost;
}
static void n_member()
{
    auto *route = (Route *)calloc(1, sizeof(Route));
    hold(route);
    truth("null", nullptr, &route->via);
    sink += cost_of(route);
}
static void n_called()
{
    auto *context = (Context *)calloc(1, sizeof(Context));
    hold(context);
    truth("null", nullptr, context);
    complete(context);
}
static void n_text()
{
    auto *route = (Route *)calloc(1, sizeof(Route));
    hold(route);
    truth("null", nullptr, &route->name);
    sink += (long)strlen(route->name);
}

// ---- what an allocator refuses, or dies of ----
static void r_twice()
{
    void *one = malloc(72), *two = malloc(72);
    hold(two);
    free(one);
    truth("refused", one);
    free(one);
    sink += (long)one;
    // Not every allocator minds.
    _exit(95);
}
static void r_stack()
{
    char text[64] = "on the stack";
    truth("refused", nullptr);
    void *volatile it = text;
    free(it);
    _exit(95);
}
static void r_inner()
{
    char *one = (char *)malloc(200);
    memset(one, 1, 200);
    truth("refused", one);
    char *volatile it = one + 24;
    free(it);
    _exit(95);
}
static void r_global()
{
    static char name[40] = "a variable";
    truth("refused", nullptr);
    void *volatile it = name;
    free(it);
    _exit(95);
}
static void r_header()
{
    void *one, *two;
    pair(136, &one, &two);
    hold(one);
    truth("overrun", one);
    memset(one, 'x', 150);
    free(two);
    _exit(95);
}
static void r_number()
{
    truth("refused", nullptr);
    void *volatile it = (void *)0x4100;
    free(it);
    _exit(95);
}

// ---- stack, and the program's own end ----
static int (*volatile again)(int);
ALONE static int deeper(int depth)
{
    volatile char room[500];
    room[depth & 255] = 1;
    return again(depth + 1) + room[depth & 15];
}
static void s_recursion()
{
    again = deeper;
    truth("stack", nullptr);
    sink += deeper(1);
}
static void a_abort()
{
    truth("own", nullptr);
    abort();
}
static void a_exception()
{
    truth("own", nullptr);
    throw std::string("nobody catches this");
}
static void a_divide()
{
    volatile long zero = 0;
    truth("own", nullptr);
    sink += 7 / zero;
}
static void a_trap()
{
    truth("own", nullptr);
    __builtin_trap();
}

static const Case cases[] = {
    CASE(u_first_member), CASE(u_row_of_table), CASE(u_member_of_class), CASE(u_end_of_list), CASE(u_pointer_to_function),
    CASE(u_function_object), CASE(u_large), CASE(f_first_word), CASE(f_virtual_call), CASE(f_list_loop), CASE(f_member_left),
    CASE(f_old_buffer), CASE(f_callback), CASE(f_counted), CASE(f_tree), CASE(f_thread), CASE(f_map_value), CASE(o_text),
    CASE(o_numbers), CASE(o_fill), CASE(o_object), CASE(o_elements), CASE(w_text_in_block), CASE(w_cut), CASE(w_index),
    CASE(w_handle), CASE(w_negative), CASE(w_constant), CASE(n_global), CASE(n_member), CASE(n_called), CASE(n_text),
    CASE(r_twice), CASE(r_stack), CASE(r_inner), CASE(r_global), CASE(r_header), CASE(r_number), CASE(s_recursion),
    CASE(a_abort), CASE(a_exception), CASE(a_divide), CASE(a_trap),
};

int main(int count, char **arguments)
{
    return run_case(cases, sizeof cases / sizeof cases[0], count, arguments);
}
