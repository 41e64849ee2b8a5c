/* One block for each way in which a program holds a block, or has lost it. Each is said before its pointer goes where it belongs:
 *
 *   LEAK case= address= size= class=reachable|possible|definite|indirect [holder=kind [symbol=] [thread=] [from=] [offset=]]
 *
 * Cases are made deep in the stack, by functions that are never inlined; what they leave there is wiped, and so are the vector
 * registers: no pointer is left by chance. */
#include "common.h"

#include <malloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>

#define CASE static __attribute__((noinline, noclone)) void
#define PAGE 4096

void *volatile global_holder, *volatile inner_holder, *volatile chain_holder, *volatile block_holder, *volatile end_holder;
void *volatile tagged_holder, *volatile map_holder, *volatile arena_holder;
volatile uintptr_t high_tags[8], turned_over[8], moved_up[8], paged[8], mixed_holder;
char packed_holder[32];
static __thread void *volatile tls_holder;
static pthread_key_t keys[40];
static volatile int ready, travelled;
/* Of LeakSanitizer, where the program runs under it (tests/leaks/oracles.rs). */
extern void __lsan_do_leak_check(void) __attribute__((weak));


static void *block(size_t size)
{
    void *made = do_malloc(size);
    need(made != NULL, "malloc fails");
    memset(made, 0, malloc_usable_size(made));
    return made;
}

static void begin(struct line *line, const char *name, void *address, const char *class)
{
    line->length = 0;
    put_text(line, "LEAK case=");
    put_text(line, name);
    put_address(line, "address", address);
    put_count(line, "size", malloc_usable_size(address));
    put_text(line, " class=");
    put_text(line, class);
}

static void state(const char *name, void *address, const char *class)
{
    struct line line;
    begin(&line, name, address, class);
    put_end(&line);
}

/* Held by a word at `from`, `offset` bytes into the block. */
static void state_held(const char *name, void *address, const char *class, const char *holder, const char *symbol,
                       const volatile void *from, size_t offset)
{
    struct line line;
    begin(&line, name, address, class);
    put_text(&line, " holder=");
    put_text(&line, holder);
    if (symbol) {
        put_text(&line, " symbol=");
        put_text(&line, symbol);
    }
    if (from)
        put_address(&line, "from", from);
    put_count(&line, "offset", offset);
    if (!strcmp(holder, "tls") || !strcmp(holder, "stack"))
        put_count(&line, "thread", (uint64_t)syscall(SYS_gettid));
    put_end(&line);
}

CASE in_global(void)
{
    void *made = block(40);
    state_held("global", made, "reachable", "global", "global_holder", &global_holder, 0);
    global_holder = made;
}

CASE in_chain(void)
{
    void **first = block(56), **second = block(72);
    state_held("chain-first", first, "reachable", "global", "chain_holder", &chain_holder, 0);
    state_held("chain-second", second, "reachable", "heap", NULL, &first[2], 0);
    first[2] = second;
    chain_holder = first;
}

CASE in_inner(void)
{
    char *made = block(88);
    state_held("inner-global", made, "reachable", "global", "inner_holder", &inner_holder, 24);
    inner_holder = made + 24;
}

CASE in_inner_of_block(void)
{
    void **holder = block(104);
    char *made = block(120);
    state_held("holder-of-inner", holder, "reachable", "global", "block_holder", &block_holder, 0);
    state_held("inner-block", made, "reachable", "heap", NULL, &holder[4], 64);
    holder[4] = made + 64;
    block_holder = holder;
}

/* Alone in its size class: nothing begins where it ends. */
CASE in_end(void)
{
    char *made = block(1500);
    size_t size = malloc_usable_size(made);
    state_held("past-the-end", made, "possible", "global", "end_holder", &end_holder, size);
    end_holder = made + size;
}

CASE in_tagged(void)
{
    char *made = block(152);
    state_held("low-tag", made, "reachable", "global", "tagged_holder", &tagged_holder, 1);
    tagged_holder = made + 1;
}

CASE in_high_tags(void)
{
    for (int at = 0; at < 8; at++) {
        char *made = block(184);
        state("high-tag", made, "possible");
        high_tags[at] = (uintptr_t)made | (uint64_t)(0x4142 + at) << 48;
    }
}

/* Other forms of a pointer: as a conservative collector is kept from seeing it, packed with a number, as glibc keeps the links of its lists. */
CASE in_other_forms(void)
{
    for (int at = 0; at < 8; at++) {
        uintptr_t over = (uintptr_t)block(9000), up = (uintptr_t)block(11000);
        state("turned-over", (void *)over, "possible");
        state("moved-up", (void *)up, "possible");
        turned_over[at] = ~over;
        moved_up[at] = up << 16 | (uintptr_t)(0x101 + at);
    }
    /* A program that lies low has so small numbers of pages that the word leads into a block still. */
    for (int at = 0; at < 8 && (uintptr_t)paged >> 32; at++) {
        uintptr_t mixed = (uintptr_t)block(13000);
        state("mixed-with-its-page", (void *)mixed, "possible");
        paged[at] = mixed ^ (uintptr_t)&paged[at] >> 12;
    }
}

CASE in_mixed(void)
{
    char *made = block(216);
    state("xor", made, "definite");
    mixed_holder = (uintptr_t)made ^ 0x5555555555555555;
}

/* A mapping that touches no other one. */
static void **mapping_of(size_t bytes)
{
    char *all = mmap(NULL, bytes + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(all != MAP_FAILED, "mmap fails");
    need(mprotect(all + PAGE, bytes, PROT_READ | PROT_WRITE) == 0, "mprotect fails");
    return (void **)(all + PAGE);
}

static void **own_mapping(void)
{
    return mapping_of(PAGE);
}

CASE in_mapping(void)
{
    void **mapping = own_mapping();
    void *made = block(248);
    state_held("own-mapping", made, "reachable", "mapping", NULL, &mapping[7], 0);
    mapping[7] = made;
    map_holder = mapping;
}

CASE in_lost_mapping(void)
{
    struct line line = {{0}, 0};
    void **mapping = own_mapping();
    void *made = block(312);
    state("lost-mapping", made, "possible");
    put_text(&line, "LOST-MAPPING");
    put_address(&line, "start", mapping);
    put_address(&line, "end", mapping + PAGE / sizeof *mapping);
    put_end(&line);
    mapping[9] = made;
}

CASE in_packed(void)
{
    char *made = block(376);
    state("unaligned", made, "definite");
    memcpy(packed_holder + 3, &made, sizeof made);
}

CASE in_signal_stack(void)
{
    stack_t stack = {.ss_sp = block(20000), .ss_size = 20000};
    state("signal-stack", stack.ss_sp, "definite");
    need(sigaltstack(&stack, NULL) == 0, "sigaltstack fails");
}

CASE in_freed(void)
{
    void **holder = block(440);
    void *made = block(504);
    struct line line;
    begin(&line, "freed-holder", made, "definite");
    put_address(&line, "was", &holder[5]);
    put_end(&line);
    holder[5] = made;
    do_free(holder);
}

CASE lost_head(void)
{
    void **head = block(632), **child = block(760);
    state("head", head, "definite");
    state("child", child, "indirect");
    head[1] = child;
}

CASE lost_self(void)
{
    void **made = block(888);
    state("self", made, "definite");
    made[3] = made;
}

CASE lost_inner(void)
{
    void **head = block(1016);
    char *child = block(1200);
    state("inner-head", head, "definite");
    state("inner-child", child, "indirect");
    head[2] = child + 48;
}

/* Both hold each other; the one at the lower address stands for both. */
CASE lost_circle(void)
{
    void **one = block(1700), **other = block(1700);
    void **low = one < other ? one : other, **high = one < other ? other : one;
    state("circle", low, "definite");
    state("circle-other", high, "indirect");
    one[1] = other;
    other[1] = one;
}

/* Two heads hold one child. */
CASE lost_shared(void)
{
    void **one = block(2300), **other = block(2300), *child = block(2700);
    state("shared-head", one, "definite");
    state("shared-head", other, "definite");
    state("shared-child", child, "indirect");
    one[1] = child;
    other[1] = child;
}

CASE on_dead_stack(void)
{
    void *volatile deep[8000];
    void *made = block(3300);
    state("dead-stack", made, "definite");
    for (int at = 0; at < 8000; at++)
        deep[at] = NULL;
    deep[100] = made;
    (void)deep[100];
}

static __attribute__((noinline, noclone)) void wipe(void)
{
    volatile char deep[200000];
    for (size_t at = 0; at < sizeof deep; at++)
        deep[at] = 0;
#ifdef __x86_64__
    __asm__ volatile("pxor %%xmm0, %%xmm0\n pxor %%xmm1, %%xmm1\n pxor %%xmm2, %%xmm2\n pxor %%xmm3, %%xmm3\n"
                     "pxor %%xmm4, %%xmm4\n pxor %%xmm5, %%xmm5\n pxor %%xmm6, %%xmm6\n pxor %%xmm7, %%xmm7\n"
                     "pxor %%xmm8, %%xmm8\n pxor %%xmm9, %%xmm9\n pxor %%xmm10, %%xmm10\n pxor %%xmm11, %%xmm11\n"
                     "pxor %%xmm12, %%xmm12\n pxor %%xmm13, %%xmm13\n pxor %%xmm14, %%xmm14\n pxor %%xmm15, %%xmm15\n" ::
                         : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                           "xmm12", "xmm13", "xmm14", "xmm15");
#endif
}

CASE in_thread_local(void)
{
    void *made = block(4000);
    state_held("tls", made, "reachable", "tls", "tls_holder", &tls_holder, 0);
    tls_holder = made;
}

CASE in_key(void)
{
    void *first = block(5000), *second = block(6000);
    state("key", first, "reachable");
    state("key-second-level", second, "reachable");
    need(pthread_setspecific(keys[0], first) == 0, "pthread_setspecific fails");
    need(pthread_setspecific(keys[39], second) == 0, "pthread_setspecific fails");
}

CASE in_stack(void *volatile *slot)
{
    void *made = block(7000);
    state_held("thread-stack", made, "reachable", "stack", NULL, slot, 0);
    *slot = made;
}

static void *work(void *unused)
{
    void *volatile stack_holder = NULL;
    in_thread_local();
    in_key();
    in_stack(&stack_holder);
    wipe();
    ready = 1;
    for (;;)
        pause();
    return stack_holder == unused ? NULL : unused;
}

enum { ARENA = 4 << 20, STACK = 64 << 10 };

CASE in_arena(void **arena)
{
    void *made = block(8000);
    state_held("below-a-stack-in-an-arena", made, "reachable", "mapping", NULL, &arena[64], 0);
    arena[64] = made;
    arena_holder = arena;
}

static void rest(void)
{
    travelled = 1;
    for (;;)
        pause();
}

/* A thread that runs on a stack in the middle of memory that has other things in it, as goroutines do. */
static void *travel(void *unused)
{
    static ucontext_t here, there;
    void **arena = mapping_of(ARENA);
    in_arena(arena);
    wipe();
    need(getcontext(&there) == 0, "getcontext fails");
    there.uc_stack.ss_sp = (char *)arena + ARENA / 2;
    there.uc_stack.ss_size = STACK;
    there.uc_link = &here;
    makecontext(&there, rest, 0);
    swapcontext(&here, &there);
    return unused;
}

int main(void)
{
    void *volatile main_holder = NULL;
    pthread_t thread, traveller;
    for (int at = 0; at < 40; at++)
        need(pthread_key_create(&keys[at], NULL) == 0, "pthread_key_create fails");
    need(pthread_create(&thread, NULL, work, NULL) == 0, "pthread_create fails");
    need(pthread_create(&traveller, NULL, travel, NULL) == 0, "pthread_create fails");
    while (!ready || !travelled)
        usleep(1000);
    in_global();
    in_chain();
    in_inner();
    in_inner_of_block();
    in_end();
    in_tagged();
    in_high_tags();
    in_other_forms();
    in_mixed();
    in_mapping();
    in_lost_mapping();
    in_packed();
    in_signal_stack();
    in_freed();
    lost_head();
    lost_self();
    lost_inner();
    lost_circle();
    lost_shared();
    in_stack(&main_holder);
    say("HEALTHY");
    wipe();
    on_dead_stack();
    if (__lsan_do_leak_check)
        __lsan_do_leak_check();
    die_by_abort();
    return main_holder != NULL;
}
