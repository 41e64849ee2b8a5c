/* A healthy program that goes through its allocator while tools/stepper steps it. It announces each operation by an int3 with the
 * operation's name in rdi, and its end by one with null; between the two every instruction is a boundary at which its heap is read.
 * Arguments: the operations to do, in order. `threaded` starts a thread that ends at once, `thread` steps one from its first use to
 * its end; two names joined by + are done by two threads at once. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void mark(const char *name)
{
    __asm__ volatile("int3" : : "D"(name) : "memory");
}

typedef void *(*malloc_function)(size_t);
typedef void (*free_function)(void *);
static malloc_function volatile do_malloc = malloc;
static free_function volatile do_free = free;
static void *(*volatile do_calloc)(size_t, size_t) = calloc;
static void *(*volatile do_realloc)(void *, size_t) = realloc;
static void *(*volatile do_aligned_alloc)(size_t, size_t) = aligned_alloc;

enum { MANY = 300 };
/* What an operation works on; each thread has its own. */
struct state {
    void *blocks[MANY];
};

static void fill(struct state *state, int count, size_t size)
{
    for (int i = 0; i < count; i++)
        memset(state->blocks[i] = do_malloc(size), 0x5a, size);
}

static void drop(struct state *state, int count)
{
    for (int i = 0; i < count; i++)
        do_free(state->blocks[i]);
}

static void *nothing(void *argument)
{
    return argument;
}

/* The first use of the allocator by a thread, a few blocks, and the thread's end with blocks in its cache. */
static void *short_life(void *argument)
{
    struct state state;
    mark("thread-first-use");
    void *first = do_malloc(64);
    mark(NULL);
    fill(&state, 40, 64);
    drop(&state, 40);
    do_free(first);
    mark("thread-exit"); /* ends with the thread */
    return argument;
}

struct operation {
    const char *name;
    void (*prepare)(struct state *state);
    void (*run)(struct state *state);
    void (*finish)(struct state *state);
};

static void none(struct state *state)
{
    (void)state;
}

static void have_cached(struct state *state)
{
    fill(state, 5, 64);
    drop(state, 5);
}
static void malloc_cached(struct state *state)
{
    state->blocks[0] = do_malloc(64);
}
static void free_one(struct state *state)
{
    do_free(state->blocks[0]);
}

static void refill(struct state *state)
{
    fill(state, 40, 48);
}
static void drop_refill(struct state *state)
{
    drop(state, 40);
}

static void have_many(struct state *state)
{
    fill(state, MANY, 96);
}
static void flush(struct state *state)
{
    drop(state, MANY);
}

/* Sizes between the small and the mapped ones, neighbours freed in an order that merges on both sides. */
static void have_middle(struct state *state)
{
    for (int i = 0; i < 12; i++)
        memset(state->blocks[i] = do_malloc(1200 + 400 * (size_t)i), 1, 16);
}
static void merge(struct state *state)
{
    static const int order[12] = {1, 3, 2, 5, 7, 9, 8, 6, 11, 10, 4, 0};
    for (int i = 0; i < 12; i++)
        do_free(state->blocks[order[i]]);
}

/* Free pieces of many sizes, then requests that sort and split them. */
static void have_pieces(struct state *state)
{
    for (int i = 0; i < 40; i++)
        state->blocks[i] = do_malloc(200 + 160 * (size_t)(i * 7 % 40));
    for (int i = 0; i < 40; i += 2)
        do_free(state->blocks[i]);
}
static void split(struct state *state)
{
    for (int i = 0; i < 40; i += 2)
        state->blocks[i] = do_malloc(300 + 80 * (size_t)i);
}
static void drop_pieces(struct state *state)
{
    drop(state, 40);
}

/* Small blocks of four sizes, more than a cache takes: glibc keeps the rest in fastbins until a large request, which puts them into the
 * unsorted bin, each merged with its free neighbours. */
static void have_fast(struct state *state)
{
    for (int i = 0; i < 64; i++)
        state->blocks[i] = do_malloc(40 + 16 * (size_t)(i / 8 % 4));
    for (int i = 0; i < 64; i += 2)
        do_free(state->blocks[i]);
    for (int i = 1; i < 64; i += 4)
        do_free(state->blocks[i]);
}
static void consolidate(struct state *state)
{
    state->blocks[0] = do_malloc(2000);
}
static void drop_fast(struct state *state)
{
    do_free(state->blocks[0]);
    for (int i = 3; i < 64; i += 4)
        do_free(state->blocks[i]);
}

static void large(struct state *state)
{
    state->blocks[0] = do_malloc(70000);
    state->blocks[1] = do_malloc(100000);
    do_free(state->blocks[0]);
    do_free(state->blocks[1]);
}
static void huge(struct state *state)
{
    state->blocks[0] = do_malloc(3 << 20);
    do_free(state->blocks[0]);
}

static void zeroed(struct state *state)
{
    state->blocks[0] = do_calloc(10, 20);
    state->blocks[1] = do_calloc(1, 3000);
    do_free(state->blocks[0]);
    do_free(state->blocks[1]);
}

static void resize(struct state *state)
{
    state->blocks[0] = do_malloc(24);
    state->blocks[0] = do_realloc(state->blocks[0], 200);
    state->blocks[0] = do_realloc(state->blocks[0], 3000);
    state->blocks[0] = do_realloc(state->blocks[0], 500);
    state->blocks[0] = do_realloc(state->blocks[0], 40000);
    do_free(state->blocks[0]);
}
static void resize_mapped(struct state *state)
{
    state->blocks[0] = do_malloc(400000);
    state->blocks[0] = do_realloc(state->blocks[0], 900000);
    state->blocks[0] = do_realloc(state->blocks[0], 1000);
    do_free(state->blocks[0]);
}

static void aligned(struct state *state)
{
    state->blocks[0] = do_aligned_alloc(64, 192);
    state->blocks[1] = do_aligned_alloc(4096, 8192);
    do_free(state->blocks[1]);
    do_free(state->blocks[0]);
}

static void trim(struct state *state)
{
    (void)state;
    malloc_trim(0);
}

static const struct operation operations[] = {
    {"first-use", none, malloc_cached, free_one},
    {"malloc-cached", have_cached, malloc_cached, free_one},
    {"free-cached", malloc_cached, free_one, none},
    {"refill", none, refill, drop_refill},
    {"flush", have_many, flush, none},
    {"merge", have_middle, merge, none},
    {"split", have_pieces, split, drop_pieces},
    {"consolidate", have_fast, consolidate, drop_fast},
    {"large", none, large, none},
    {"huge", none, huge, none},
    {"calloc", none, zeroed, none},
    {"realloc", none, resize, none},
    {"realloc-mapped", none, resize_mapped, none},
    {"aligned", none, aligned, none},
    {"trim", have_many, trim, drop_refill},
};

enum { COUNT = sizeof operations / sizeof *operations };

static const struct operation *find(const char *name, size_t length)
{
    for (int i = 0; i < COUNT; i++)
        if (strlen(operations[i].name) == length && memcmp(operations[i].name, name, length) == 0)
            return &operations[i];
    _exit(95);
}

static void perform(const struct operation *operation)
{
    struct state state;
    operation->prepare(&state);
    mark(operation->name);
    operation->run(&state);
    mark(NULL);
    operation->finish(&state);
}

static void in_a_thread(void *(*life)(void *), void *argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, life, argument) != 0 || pthread_join(thread, NULL) != 0)
        _exit(94);
}

/* One of two threads that work at once; both are ready before one begins. */
static pthread_barrier_t barrier;
static void *half(void *operation)
{
    struct state state;
    const struct operation *mine = operation;
    mine->prepare(&state);
    pthread_barrier_wait(&barrier);
    mark(mine->name);
    mine->run(&state);
    mark(NULL);
    pthread_barrier_wait(&barrier);
    mine->finish(&state);
    return NULL;
}

static void pair(const char *names)
{
    const char *plus = strchr(names, '+');
    pthread_t threads[2];
    const struct operation *both[2] = {find(names, (size_t)(plus - names)), find(plus + 1, strlen(plus + 1))};
    pthread_barrier_init(&barrier, NULL, 2);
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, half, (void *)(uintptr_t)both[i]) != 0)
            _exit(94);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    char go;
    if (write(1, "ready\n", 6) != 6 || read(0, &go, 1) != 1)
        _exit(93);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "thread") == 0)
            in_a_thread(short_life, NULL);
        else if (strcmp(argv[i], "threaded") == 0)
            in_a_thread(nothing, NULL); /* from here on the process takes locks */
        else if (strchr(argv[i], '+'))
            pair(argv[i]);
        else
            perform(find(argv[i], strlen(argv[i])));
    }
    _exit(0);
}
