/* As holders.c, with what C++ holds its objects by: a unique_ptr on the stack, `this`, a member of a class, a reference, variables of a namespace
 * and of a function that are made once. */
#include "common.h"

#include <malloc.h>
#include <memory>
#include <sys/syscall.h>

#define APART __attribute__((noinline, noclone))

namespace
{

volatile int ready;
volatile int for_ever = 1;
volatile int *volatile nowhere;

APART void state(void *address, const char *kind, const char *variable, const char *function, const volatile void *from, size_t offset)
{
    struct line line = {{0}, 0};
    put_text(&line, "HOLDER");
    put_address(&line, "address", address);
    put_text(&line, " kind=");
    put_text(&line, kind);
    put_text(&line, function ? " variable=" : " symbol=");
    put_text(&line, variable);
    if (function) {
        put_text(&line, " function=");
        put_text(&line, function);
    }
    put_count(&line, "offset", offset);
    if (from)
        put_address(&line, "from", from);
    if (strcmp(kind, "global"))
        put_count(&line, "thread", (uint64_t)syscall(SYS_gettid));
    put_end(&line);
}

APART void wipe()
{
    volatile char deep[100000];
    for (size_t at = 0; at < sizeof deep; at++)
        deep[at] = 0;
#ifdef __x86_64__
    __asm__ volatile("xor %%eax, %%eax\n xor %%ecx, %%ecx\n xor %%edx, %%edx\n xor %%esi, %%esi\n xor %%edi, %%edi\n"
                     "xor %%r8d, %%r8d\n xor %%r9d, %%r9d\n xor %%r10d, %%r10d\n xor %%r11d, %%r11d\n"
                     "pxor %%xmm0, %%xmm0\n pxor %%xmm1, %%xmm1\n pxor %%xmm2, %%xmm2\n pxor %%xmm3, %%xmm3\n"
                     "pxor %%xmm4, %%xmm4\n pxor %%xmm5, %%xmm5\n pxor %%xmm6, %%xmm6\n pxor %%xmm7, %%xmm7\n" ::
                         : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
                           "xmm5", "xmm6", "xmm7");
#endif
}

APART void *block(size_t size)
{
    void *made = do_malloc(size);
    need(made != nullptr, "malloc fails");
    memset(made, 0, malloc_usable_size(made));
    return made;
}

} // namespace

namespace server
{

struct Entry {
    long number;
    void *volatile owner;
};

Entry table[3];
thread_local Entry cache;

class Worker
{
public:
    APART char run(size_t size)
    {
        state(this, "stack", "this", "server::Worker::run", nullptr, 0);
        wipe();
        ready = 1;
        while (for_ever)
            pause();
        return name[size - 1];
    }

private:
    char name[100] = {};
};

} // namespace server

static APART void fill(server::Entry &entry, const char *symbol, const char *kind, size_t size, size_t before)
{
    void *made = block(size);
    state(made, kind, symbol, nullptr, &entry.owner, before + offsetof(server::Entry, owner));
    entry.owner = made;
}

/* Its caller has no use for the worker any more. */
static APART server::Worker *make_worker()
{
    return new (block(sizeof(server::Worker))) server::Worker;
}

static void *work(void *unused)
{
    fill(server::cache, "server::cache", "tls", 200, 0);
    return make_worker()->run(50) ? unused : nullptr;
}

static APART void give(std::unique_ptr<char[]> &owner)
{
    owner.reset(static_cast<char *>(block(300)));
    state(owner.get(), "stack", "owner", "die_holding", &owner, 0);
}

/* Nothing of what its caller may be in the middle of stays in a register that it could change. */
static __attribute__((noipa)) void die(void)
{
    *nowhere = 1;
}

static APART char die_holding()
{
    std::unique_ptr<char[]> owner;
    give(owner);
    say("HEALTHY");
    wipe();
    die();
    return owner[0];
}

int main()
{
    pthread_t thread;
    need(pthread_create(&thread, nullptr, work, nullptr) == 0, "pthread_create fails");
    while (!ready)
        usleep(1000);
    usleep(20000);
    fill(server::table[2], "server::table", "global", 400, 2 * sizeof(server::Entry));
    say("DIES signal=SIGSEGV");
    return die_holding();
}
