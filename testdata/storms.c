/* storms MODE THREADS MILLISECONDS SEED: threads that do nothing but call the allocator, stopped by SIGABRT at a moment that nobody chose.
 * MODE is one letter: s small blocks, l large ones, b batches of 300, x blocks that travel between threads, r realloc and aligned
 * memory, c calloc, t threads that come and go, f a child of fork gets the signal while its parent's threads work, m a bit of all.
 * The seed decides, too, whether the main thread dies, which waits, or a worker in the middle of its work.
 * Nothing is wrong with these heaps: whatever looks so is a state that the allocator passes through. */
#include <stdlib.h>
#ifdef PREFIXED /* jemalloc as a part of the program */
#define malloc je_malloc
#define calloc je_calloc
#define realloc je_realloc
#define posix_memalign je_posix_memalign
#define free je_free
void *malloc(size_t);
void *calloc(size_t, size_t);
void *realloc(void *, size_t);
int posix_memalign(void **, size_t, size_t);
void free(void *);
#endif
#include "common.h"
#include <sys/wait.h>

enum { MAX_THREADS = 256, SLOTS = 128, BATCH = 300, SHARED = 512 };

static void *shared[SHARED];
static char mode;

static size_t small_size(uint32_t *state)
{
    return 1 + next(state) % (next(state) % 4 ? 160 : 1000);
}

static size_t large_size(uint32_t *state)
{
    return 1 + next(state) % (next(state) % 8 ? 30000 : 400000);
}

static size_t some_size(uint32_t *state)
{
    return mode == 's' || (mode != 'l' && next(state) % 16) ? small_size(state) : large_size(state);
}

static void batch(uint32_t *state)
{
    void *blocks[BATCH];
    for (int i = 0; i < BATCH; i++)
        blocks[i] = do_malloc(small_size(state));
    int backwards = next(state) % 2;
    for (int i = 0; i < BATCH; i++)
        do_free(blocks[backwards ? BATCH - 1 - i : i]);
}

static void travel(void **block, uint32_t *state)
{
    do_free(*block);
    *block = __atomic_exchange_n(&shared[next(state) % SHARED], do_malloc(some_size(state)), __ATOMIC_ACQ_REL);
}

static void change(void **block, uint32_t *state)
{
    void *aligned = NULL;
    switch (next(state) % 3) {
    case 0:
        do_free(*block);
        if (posix_memalign(&aligned, 16u << next(state) % 6, some_size(state)))
            aligned = NULL;
        *block = aligned;
        break;
    default:
        *block = realloc(*block, some_size(state));
    }
}

static void renew(void **block, uint32_t *state)
{
    do_free(*block);
    *block = mode == 'c' ? calloc(1 + next(state) % 4, some_size(state)) : do_malloc(some_size(state));
    if (*block)
        memset(*block, 0x33, 1);
}

static void *brief(void *seed)
{
    void *mine[SLOTS] = {0};
    uint32_t state = (uint32_t)(uintptr_t)seed;
    for (int i = 0; i < 2 * SLOTS; i++)
        renew(&mine[next(&state) % SLOTS], &state);
    for (int i = 0; i < SLOTS; i++)
        do_free(mine[i]);
    return NULL;
}

static void come_and_go(uint32_t *state)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, brief, (void *)(uintptr_t)(next(state) | 1)) == 0)
        pthread_join(thread, NULL);
}

static void *work(void *seed)
{
    static const char all[] = "sbxrctl";
    void *mine[SLOTS] = {0};
    uint32_t state = (uint32_t)(uintptr_t)seed;
    for (;;) {
        void **block = &mine[next(&state) % SLOTS];
        uint32_t chance = next(&state);
        char what = mode == 'm' || mode == 'f' ? all[chance % (sizeof all - 1)] : mode;
        switch (what) {
        case 'b':
            batch(&state);
            break;
        case 'x':
            travel(block, &state);
            break;
        case 'r':
            change(block, &state);
            break;
        case 't':
            if (mode == 't' || (chance >> 8) % 64 == 0)
                come_and_go(&state);
            break;
        default:
            renew(block, &state);
        }
    }
    return NULL;
}

/* The child of a fork does a little and dies; it has none of its parent's threads. */
static void die_in_child(uint32_t *state)
{
    pid_t child = fork();
    need(child >= 0, "no child");
    if (child == 0) {
        mode = 's';
        for (uint32_t i = next(state) % 3 * 100; i > 0; i--)
            do_free(do_malloc(small_size(state)));
        kill(getpid(), SIGABRT);
        _exit(95);
    }
    waitpid(child, NULL, 0);
    _exit(0);
}

int main(int argc, char **argv)
{
    need(argc == 5, "storms MODE THREADS MILLISECONDS SEED");
    mode = argv[1][0];
    uint32_t threads = (uint32_t)atoi(argv[2]) % (MAX_THREADS + 1);
    useconds_t pause = (useconds_t)atoi(argv[3]) * 1000;
    uint32_t seed = (uint32_t)strtoul(argv[4], NULL, 0), state = seed * 2654435761u | 1;
    int main_dies = mode == 'f' || next(&state) % 2;
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGABRT);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
    say("HEALTHY");
    say("DIES signal=SIGABRT");
    if (!main_dies)
        pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
    for (uint32_t i = 0; i < threads; i++) {
        pthread_t thread;
        need(pthread_create(&thread, NULL, work, (void *)(uintptr_t)(next(&state) | 1)) == 0, "no thread");
    }
    pthread_sigmask(main_dies ? SIG_UNBLOCK : SIG_BLOCK, &stop, NULL);
    usleep(pause + next(&state) % 20000);
    if (mode == 'f')
        die_in_child(&state);
    kill(getpid(), SIGABRT);
    for (;;)
        usleep(1000000);
}
