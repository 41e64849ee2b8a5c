/* Blocks that are held by one word each, of which the program says by what name a person would call it:
 *
 *   HOLDER address= kind=stack|tls|global [variable= function= offset=] [symbol= offset=] thread= [from=]
 *
 * `offset` is that of the word in its variable. Blocks are made deep in the stack, by functions that are never inlined; what they leave there is
 * wiped, and so are the registers: no pointer is left by chance. `kind=stack` may be a register that a frame further in keeps. */
#include "common.h"

#include <malloc.h>
#include <sys/syscall.h>

#define APART __attribute__((noinline, noclone))

struct table {
    long count;
    void *volatile list[4];
};

struct session {
    void *volatile name;
    void *volatile peer;
};

struct table sessions;
static struct table others;
static __thread struct table cache;
static volatile int ready;
static volatile int for_ever = 1;
static volatile int *volatile nowhere;

static APART void *block(size_t size)
{
    void *made = do_malloc(size);
    need(made != NULL, "malloc fails");
    memset(made, 0, malloc_usable_size(made));
    return made;
}

static APART void state(void *address, const char *kind, const char *variable, const char *function, const volatile void *from,
                        size_t offset)
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

static APART void wipe(void)
{
    volatile char deep[100000];
    for (size_t at = 0; at < sizeof deep; at++)
        deep[at] = 0;
#ifdef __x86_64__
    __asm__ volatile("xor %%eax, %%eax\n xor %%ecx, %%ecx\n xor %%edx, %%edx\n xor %%esi, %%esi\n xor %%edi, %%edi\n"
                     "xor %%r8d, %%r8d\n xor %%r9d, %%r9d\n xor %%r10d, %%r10d\n xor %%r11d, %%r11d\n"
                     "pxor %%xmm0, %%xmm0\n pxor %%xmm1, %%xmm1\n pxor %%xmm2, %%xmm2\n pxor %%xmm3, %%xmm3\n"
                     "pxor %%xmm4, %%xmm4\n pxor %%xmm5, %%xmm5\n pxor %%xmm6, %%xmm6\n pxor %%xmm7, %%xmm7\n"
                     "pxor %%xmm8, %%xmm8\n pxor %%xmm9, %%xmm9\n pxor %%xmm10, %%xmm10\n pxor %%xmm11, %%xmm11\n"
                     "pxor %%xmm12, %%xmm12\n pxor %%xmm13, %%xmm13\n pxor %%xmm14, %%xmm14\n pxor %%xmm15, %%xmm15\n" ::
                         : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
                           "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
#endif
}

static APART void fill_table(struct table *table, const char *name, const char *kind, size_t size, int index)
{
    void *made = block(size);
    table->count++;
    state(made, kind, name, NULL, &table->list[index], offsetof(struct table, list) + (size_t)index * sizeof(void *));
    table->list[index] = made;
}

static APART void fill_session(struct session *session, const char *function)
{
    void *made = block(200);
    state(made, "stack", "session", function, &session->peer, offsetof(struct session, peer));
    session->peer = made;
}

/* A block that only a local variable will have. */
static APART char *take(const char *variable, const char *function, size_t size)
{
    char *made = block(size);
    state(made, "stack", variable, function, NULL, 0);
    return made;
}

static APART void wait_for_ever(void)
{
    wipe();
    ready = 1;
    while (for_ever)
        pause();
}

/* `mine` lives across the call: in a register that is kept by the functions inside, or on the stack. */
static APART char worker_loop(size_t size)
{
    char *mine = take("mine", "worker_loop", size);
    wait_for_ever();
    return mine[size - 1];
}

static void *work(void *unused)
{
    struct session session = {NULL, NULL};
    fill_session(&session, "work");
    fill_table(&cache, "cache", "tls", 300, 2);
    return worker_loop(400) && session.peer ? unused : NULL;
}

/* Nothing of what its caller may be in the middle of stays in a register that it could change. */
static __attribute__((noipa)) void die(void)
{
    *nowhere = 1;
}

/* The same in the thread that dies; a local that is an array. */
static APART char die_holding(size_t size)
{
    void *volatile slots[5] = {NULL};
    char *last;
    slots[3] = block(600);
    state(slots[3], "stack", "slots", "die_holding", &slots[3], 3 * sizeof *slots);
    last = take("last", "die_holding", size);
    say("HEALTHY");
    wipe();
    die();
    return slots[3] ? last[0] : 0;
}

int main(void)
{
    pthread_t thread;
    need(pthread_create(&thread, NULL, work, NULL) == 0, "pthread_create fails");
    while (!ready)
        usleep(1000);
    usleep(20000);
    fill_table(&sessions, "sessions", "global", 700, 1);
    fill_table(&others, "others", "global", 800, 3);
    say("DIES signal=SIGSEGV");
    return die_holding(900);
}
