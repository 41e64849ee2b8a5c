/* Crashes of which the value at fault says where it came from, whether or not the heap is damaged. By variant:
 *   PURE       a virtual function without a body is called on an object that was destroyed and freed        dangling-reference
 *   PURE_MADE  the same while the object is made: it is in use                                              nothing
 *   UNSET      a block is read before anything was written there, as the tcache left it                     uninitialised-use
 *   UNSET_BIN  the same, as an arena's bin left it: a pointer into the arena                                uninitialised-use
 *   TEXT       a word of a block in use that the program itself wrote                                       nothing
 *   THREAD     a recursion in a thread with a small stack, which a page without access guards               stack-overflow
 *   TURNS      two functions that call each other                                                           stack-overflow
 *   LARGE      one frame that is larger than the stack                                                      stack-overflow
 *   GUARD      a store to the page that guards a stack, which has room                                      nothing
 *   CALLED     null is called, which stands in a block                                                      nothing
 *   CUT        a pointer to a block went through an int                                                     nothing
 *   FAR        an index leads far away from a block                                                         nothing
 *   LITERAL    a literal is written                                                                         nothing
 *
 * CAME at=ADDRESS block=ADDRESS   what the value was loaded from; block alone: where the value was to lead. */
#include "common.h"

#include <malloc.h>
#include <new>

#define APART __attribute__((noinline, noclone))

static volatile long sum;

#if defined PURE || defined PURE_MADE
/* Not in the namespace without a name: of a class that is known to have one child only, the compiler calls the child's function at once. */
struct Shape {
    Shape();
    virtual ~Shape();
    virtual long area() const = 0;
    long id = 1;
};
struct Circle : Shape {
    long radius = 2;
    long area() const override { return radius * 3; }
};
struct Square : Shape {
    long side = 3;
    long area() const override { return side * side; }
};
static APART long area_of(const Shape *shape)
{
    return shape->area() + 1;
}
Shape::Shape()
{
#ifdef PURE_MADE
    sum += area_of(this);
#endif
}
Shape::~Shape()
{
    /* The compiler must think that the table is read after it was set to the base's. */
    __asm__ volatile("" : : "r"(this) : "memory");
}

#endif

namespace
{

char *volatile text;
volatile int depths = 1 << 30;

struct Connection {
    char *host;
    long port;
    void (*closed)(Connection *);
    char name[40];
};
Connection *volatile connection;

APART long port_of(Connection *it)
{
    return it->host[0] + it->port;
}
APART long fire(Connection *it)
{
    it->closed(it);
    return it->port;
}
APART long at(const long *numbers, long index)
{
    return numbers[index] + 1;
}
volatile long far_index = -(1L << 30);

/* The function that is called back, so that no compiler makes a loop of it. */
int (*volatile again)(int);
APART int deep(int depth)
{
    volatile char room[256];
    room[depth & 255] = (char)depth;
    if (depth > depths)
        return depth;
    return again(depth + 1) + room[(depth + 1) & 255];
}
APART int deeper(int depth)
{
    volatile char room[100];
    room[depth & 63] = (char)depth;
    return deep(depth + 1) + room[(depth + 1) & 63];
}
APART long large(size_t bytes)
{
    volatile char *room = (volatile char *)__builtin_alloca(bytes);
    room[0] = 1;
    sum += room[0];
    return room[8];
}
void *run(void *)
{
    again = deep;
    sum += deep(1);
    return nullptr;
}
/* A place below the stack of this thread, which has room: the page that guards it. */
APART void *store_below(void *stack)
{
    *(volatile char *)((char *)stack - 64) = 1;
    return nullptr;
}

void came(const volatile void *at, const volatile void *block)
{
    struct line line = {{0}, 0};
    put_text(&line, "CAME");
    if (at)
        put_address(&line, "at", at);
    if (block)
        put_address(&line, "block", block);
    put_end(&line);
}

Connection *make()
{
    auto *it = (Connection *)do_malloc(sizeof(Connection));
    memset(it, 0, sizeof *it);
    it->port = 80;
    return it;
}

} // namespace

int main()
{
    void *blocks[16];
    for (void *&block : blocks) {
        block = do_malloc(sizeof(Connection));
        memset(block, 'a', sizeof(Connection));
    }
    connection = make();
    (void)came, (void)port_of, (void)fire, (void)at, (void)large, (void)run, (void)store_below, (void)deeper;
#if defined PURE
    /* The object stands further on in its block than what the allocator writes there. */
    char *block = (char *)do_malloc(16 + sizeof(Circle));
    Shape *volatile shape = block ? (Shape *)new (block + 16) Circle : new Square;
    size_t size = malloc_usable_size(block);
    shape->~Shape();
    do_free(block);
    expect("dangling-reference", block, block, size, nullptr, "explains=yes needs=code");
    say("DIES signal=SIGABRT function=__cxa_pure_virtual");
    sum += area_of(shape);
#elif defined PURE_MADE
    say("HEALTHY");
    say("DIES signal=SIGABRT");
    new (do_malloc(sizeof(Circle))) Circle;
#elif defined UNSET
    do_free(blocks[3]);
    connection = (Connection *)do_malloc(sizeof(Connection));
    connection->port = 1;
    expect("uninitialised-use", connection, connection, malloc_usable_size(connection), nullptr, "explains=yes needs=code");
    came(connection, connection);
    say("DIES signal=SIGSEGV");
    sum += port_of(connection);
#elif defined UNSET_BIN
    /* Too large for a tcache; the last one keeps it apart from the top. */
    void *first = do_malloc(4000), *last = do_malloc(64);
    memset(first, 'a', 4000);
    sum += last != nullptr;
    do_free(first);
    auto *again = (char **)do_malloc(4000);
    expect("uninitialised-use", again, again, malloc_usable_size(again), nullptr, "explains=yes needs=code");
    say("DIES signal=SIGSEGV");
    /* What stands there is the bin's, and the bin's own word leads to the top: 0 stands further on in an arena. */
    void (*volatile function)() = *(void (**)())again[0];
    function();
#elif defined TEXT
    connection = (Connection *)blocks[7];
    say("HEALTHY");
    came(connection, connection);
    say("DIES signal=SIGSEGV");
    sum += port_of(connection);
#elif defined THREAD
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    pthread_t thread;
    say("EXPECT kind=stack-overflow explains=yes needs=code");
    say("DIES signal=SIGSEGV");
    pthread_create(&thread, &small, run, nullptr);
    pthread_join(thread, nullptr);
#elif defined TURNS
    again = deeper;
    say("EXPECT kind=stack-overflow explains=yes needs=code");
    say("DIES signal=SIGSEGV");
    sum += deep(1);
#elif defined LARGE
    say("EXPECT kind=stack-overflow explains=yes needs=code");
    say("DIES signal=SIGSEGV");
    sum += large(40 << 20);
#elif defined GUARD
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 << 10);
    pthread_t thread;
    need(pthread_attr_setguardsize(&small, 4096) == 0, "a guard");
    say("HEALTHY");
    say("DIES signal=SIGSEGV");
    pthread_create(&thread, &small, [](void *) -> void * {
        pthread_attr_t own;
        void *lowest;
        size_t all;
        pthread_getattr_np(pthread_self(), &own);
        pthread_attr_getstack(&own, &lowest, &all);
        pthread_attr_destroy(&own);
        return store_below(lowest);
    }, nullptr);
    pthread_join(thread, nullptr);
#elif defined CALLED
    say("HEALTHY");
    came(&connection->closed, connection);
    say("DIES signal=SIGSEGV");
    sum += fire(connection);
#elif defined CUT
    auto *cut = (Connection *)(uintptr_t)(uint32_t)(uintptr_t)connection;
    say("HEALTHY");
    came(nullptr, connection);
    say("DIES signal=SIGSEGV");
    sum += port_of(cut);
#elif defined FAR
    say("HEALTHY");
    came(nullptr, blocks[5]);
    say("DIES signal=SIGSEGV");
    sum += at((long *)blocks[5], far_index);
#elif defined LITERAL
    text = (char *)"a literal";
    say("HEALTHY");
    came(&text, nullptr);
    say("DIES signal=SIGSEGV");
    *text = 'x';
#endif
    _exit(95);
}
