/*
 * Stacks of all kinds, one a run: cases MODE. Every mode ends in a core; tests/backtraces.rs says what it must show, and
 * compares every thread with gdb.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int without_cfi(int x); /* stacks/nocfi.c */

/* Hand-written code without call-frame information (stacks/assembler-*.S): one that touches no stack, one with a frame pointer,
 * one without, and one that makes frames as Go does, on a stack of its own. */
int assembler_leaf(int x);
int assembler_frame(int x);
int assembler_push(int x);
int assembler_go(int x, void *stack);

int callee(int x) {
    if (x > 0) abort();
    return x;
}

static void handler(int number) {
    (void)number;
    abort();
}

static void informed(int number, siginfo_t *info, void *context) {
    (void)number, (void)info, (void)context;
    abort();
}

static void handle(int flags) {
    struct sigaction action = {.sa_flags = flags};
    if (flags & SA_SIGINFO)
        action.sa_sigaction = informed;
    else
        action.sa_handler = handler;
    sigaction(SIGSEGV, &action, NULL);
}

__attribute__((noinline)) static int smash(void) {
    volatile char buffer[16];
    memset((char *)buffer, 'A', 64);
    return buffer[3];
}

__attribute__((noinline)) static int recurse(int depth, int end) {
    volatile char here[32];
    here[depth & 31] = (char)depth;
    if (depth == end) abort();
    return recurse(depth + 1, end) + here[3];
}

__attribute__((noinline)) static int odd(int depth);
__attribute__((noinline)) static int even(int depth) {
    volatile int here = depth;
    if (here > 5000) abort();
    return odd(here + 1) + here;
}
__attribute__((noinline)) static int odd(int depth) {
    volatile int here = depth;
    return even(here + 1) + here;
}

__attribute__((noinline)) static int call_null(int x) {
    int (*volatile function)(int) = NULL;
    return function(x) + 1;
}

__attribute__((noinline)) static int call_wild(int x) {
    int (*volatile function)(int) = (int (*)(int))0x1234567890;
    return function(x) + 1;
}

__attribute__((noinline)) static int store(long *array, long index) {
    array[index] = 42;
    return (int)array[0];
}

/* The slot that an entry of the procedure linkage table jumps through cannot be read: the fault is in the entry. */
extern char _GLOBAL_OFFSET_TABLE_[];
__attribute__((noinline)) static int linkage(void) {
    uintptr_t page = (uintptr_t)_GLOBAL_OFFSET_TABLE_ & ~4095ul;
    long result;
#ifdef __aarch64__
    register long number __asm__("x8") = SYS_mprotect;
    register long x0 __asm__("x0") = (long)page, x1 __asm__("x1") = 8192, x2 __asm__("x2") = PROT_NONE;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(number), "r"(x1), "r"(x2) : "memory");
    result = x0;
#else
    __asm__ volatile("syscall" : "=a"(result) : "0"(SYS_mprotect), "D"(page), "S"(8192), "d"(PROT_NONE) : "rcx", "r11", "memory");
#endif
    return (int)(getppid() + result);
}

static void *block(void *argument) {
    static pthread_mutex_t locked = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    switch ((long)argument % 5) {
    case 0:
        for (;;) pause();
    case 1:
        for (;;) sleep(1000);
    case 2: {
        pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;
        pthread_mutex_lock(&own);
        pthread_mutex_lock(&own);
        break;
    }
    case 3:
        pthread_mutex_lock(&locked);
        for (;;) pthread_cond_wait(&never, &locked);
    default: {
        char byte;
        int ends[2];
        if (pipe(ends) == 0 && read(ends[0], &byte, 1) == 1) abort();
    }
    }
    return NULL;
}

static void *read_clock(void *argument) {
    struct timespec now;
    (void)argument;
    for (;;) clock_gettime(CLOCK_MONOTONIC, &now);
}

static void threads(int count, void *(*run)(void *)) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 131072); /* the least of aarch64 */
    for (long number = 0; number < count; number++) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, run, (void *)number) != 0) _exit(1);
    }
    struct timespec time = {.tv_sec = count >= 100 ? 2 : 1};
    nanosleep(&time, NULL);
    abort();
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
#define MODE(name) if (strcmp(mode, name) == 0)
    MODE("null") return call_null(count) + 1;
    MODE("wild") return call_wild(count) + 1;
    MODE("smash") return smash() + 1;
    MODE("nocfi") return without_cfi(count) + 1;
    MODE("leaf") return assembler_leaf(count) + 1;
    MODE("frame") return assembler_frame(count) + 1;
    MODE("push") return assembler_push(count) + 1;
    MODE("plt") return linkage() + 1;
    MODE("store") return store((long *)0x10000, count * 3) + 1;
    MODE("deep") return recurse(0, 20000) + 1;
    MODE("mutual") return even(0) + 1;
    MODE("overflow") return recurse(0, -1) + 1;
    MODE("overflow-handled") {
        stack_t stack = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
        sigaltstack(&stack, NULL);
        handle(SA_ONSTACK);
        return recurse(0, -1) + 1;
    }
    MODE("handler") {
        handle(0);
        return assembler_leaf(count) + 1;
    }
    MODE("handler-informed") {
        handle(SA_SIGINFO);
        return store((long *)0x10000, count * 3) + 1;
    }
    MODE("free") {
        char *volatile block = malloc(100);
        free(block + 4);
        return 1;
    }
    MODE("assert") assert(count == 77 && "a reason");
    MODE("go") return assembler_go(count, (char *)malloc(65536) + 65536) + 1;
    MODE("threads-1000") threads(1000, block);
    MODE("threads-40") threads(40, block);
    MODE("vdso") threads(8, read_clock);
    return 0;
}
