/* Healthy heaps with something unusual about them. Each aborts; but for the storms its counts are known. By variant:
 *   LARGE       large blocks only, some of them freed, neighbours among them
 *   NEVER       the program itself never allocates
 *   PURGED      a mix of sizes, much of it freed and given back to the system
 *   EXITED      threads that allocated and freed have ended; what they handed out is in use
 *   WAITING     threads that allocated and freed wait, with blocks in their caches
 *   ARENAS      arenas of the program's own: blocks taken from them by name, one of them reset, one destroyed
 *   TCACHES     caches of the program's own, with blocks in them
 *   ALIGNED     blocks with wide alignment, and blocks that realloc has moved or made smaller
 *   FILLED      the program fills its blocks with the byte that jemalloc's junk option fills free ones with
 *   MOVED       blocks of many sizes that were written here and there, moved by realloc, and given back with their slabs
 *   ENOMEM      malloc has failed for want of address space, many times, in several sizes
 *   HANDLER     a signal handler aborts while its thread is, most likely, in the middle of malloc or free; ALTSTACK: the
 *               handler has a stack of its own
 *   FORK        the child of a process with threads, forked while they were outside the allocator
 *   FORK_STORM  the same, forked while they were hammering the allocator: in the child their caches are left as they
 *               were, in the middle of something, with no thread that could say so */
#include "jemalloc/jemalloc.h"

#define WORK_SIZE(seed) (1 + next(seed) % (next(seed) % 50 ? 2000 : 60000))
#ifdef FORK
#define SAY_IN_CHILD say_allocated_bytes
#endif
#include "busy.h"
#include <sys/resource.h>

static UNUSED void *work_and_wait(void *seed)
{
    work((uint32_t)(uintptr_t)seed, 20000);
    wait_for_ever();
}

static UNUSED unsigned new_arena(void)
{
    unsigned arena = 0;
    size_t length = sizeof arena;
    need(mallctl("arenas.create", &arena, &length, NULL, 0) == 0, "no arena");
    return arena;
}

/* arena.<index>.<what> */
static UNUSED void do_with_arena(const char *what, size_t index)
{
    char name[40] = "arena.0.";
    size_t mib[3], count = 3;
    strcat(name, what);
    need(mallctlnametomib(name, mib, &count) == 0, name);
    mib[1] = index;
    need(mallctlbymib(mib, count, NULL, NULL, NULL, 0) == 0, name);
}

static UNUSED void fill_arena(unsigned arena)
{
    void *blocks[400];
    uint32_t seed = 3 + arena;
    for (int i = 0; i < 400; i++)
        blocks[i] = mallocx(1 + next(&seed) % 40000, IN_ARENA(arena) | NO_TCACHE);
    for (int i = 0; i < 400; i += 3)
        dallocx(blocks[i], NO_TCACHE);
}

int main(void)
{
    pthread_t threads[THREADS];
    (void)threads;
    say("HEALTHY");
#if defined LARGE
    char *blocks[40];
    for (int i = 0; i < 40; i++)
        blocks[i] = (char *)do_malloc(16384 + 50000 * (size_t)(i % 11));
    for (int i = 0; i < 40; i += 3)
        do_free(blocks[i]);
    do_free(blocks[10]);
    do_free(blocks[20]);
    do_free(blocks[11]);
    char *volatile huge = (char *)do_malloc(40000000);
    need(huge != NULL, "no memory");
#elif defined PURGED
    static char *blocks[3000];
    uint32_t seed = 7;
    for (int i = 0; i < 3000; i++)
        blocks[i] = (char *)do_malloc(1 + next(&seed) % 30000);
    for (int i = 0; i < 2000; i++)
        do_free(blocks[i]);
    flush();
    do_with_arena("decay", ALL_ARENAS);
    do_with_arena("purge", ALL_ARENAS);
    for (int i = 2000; i < 3000; i += 3)
        do_free(blocks[i]);
    for (int i = 0; i < 100; i++)
        blocks[i] = (char *)do_malloc(1 + next(&seed) % 300000);
#elif defined EXITED
    for (int round = 0; round < 3; round++) {
        start(work_and_end, threads);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
    }
#elif defined WAITING
    start(work_and_wait, threads);
    pthread_barrier_wait(&ready);
#elif defined ARENAS
    unsigned kept = new_arena(), emptied = new_arena(), gone = new_arena();
    fill_arena(kept);
    fill_arena(emptied);
    fill_arena(gone);
    do_with_arena("reset", emptied);
    do_with_arena("destroy", gone);
    void *volatile again = mallocx(5000, IN_ARENA(emptied) | NO_TCACHE);
    need(again != NULL, "no memory");
#elif defined TCACHES
    static void *blocks[2][60];
    for (int i = 0; i < 2; i++) {
        unsigned cache = 0;
        size_t length = sizeof cache;
        need(mallctl("tcache.create", &cache, &length, NULL, 0) == 0, "no cache");
        int flags = (int)(cache + 2) << 8;
        for (int j = 0; j < 60; j++)
            blocks[i][j] = mallocx(100 + 700 * (size_t)i, flags);
        for (int j = 0; j < 20; j++)
            dallocx(blocks[i][j], flags);
    }
#elif defined ALIGNED
    static void *blocks[200];
    uint32_t seed = 5;
    for (int i = 0; i < 200; i++) {
        blocks[i] = mallocx(1 + next(&seed) % 70000, (int)(next(&seed) % 18)); /* aligned to 2^n */
        if (i % 3 == 0)
            blocks[i] = realloc(blocks[i], 1 + next(&seed) % 100000);
        if (i % 5 == 0)
            do_free(blocks[i]);
    }
#elif defined FILLED
    static char *blocks[2000];
    for (int i = 0; i < 2000; i++)
        blocks[i] = (char *)memset(do_malloc(200), 0x5a, 200);
    for (int i = 0; i < 2000; i += 16)
        strcpy(blocks[i] + 64, "something else");
    for (int i = 0; i < 1500; i++)
        do_free(blocks[i]);
#elif defined MOVED
    static char *blocks[3000];
    uint32_t seed = 11;
    for (int i = 1; i <= 60000; i++) {
        char **block = &blocks[next(&seed) % 3000];
        size_t size = 1 + next(&seed) % (next(&seed) % 8 ? 600 : 30000);
        uint32_t way = next(&seed) % 4;
        if (way == 0)
            *block = (char *)realloc(*block, size);
        else
            do_free(*block), *block = way == 1 ? NULL : (char *)do_malloc(size);
        if (*block && way == 2)
            memset(*block, 1, next(&seed) % size);
        else if (*block && size > 100)
            memset(*block + size / 2, 4, 30);
        for (int j = 0; i % 5000 == 0 && j < 3000; j++)
            if (next(&seed) % 10)
                do_free(blocks[j]), blocks[j] = NULL;
        if (i % 5000 == 0)
            flush();
    }
#elif defined ENOMEM
    static void *blocks[4000];
    size_t count = 0, failed = 0;
    struct rlimit limit = {1 << 28, RLIM_INFINITY};
    need(setrlimit(RLIMIT_AS, &limit) == 0, "no limit");
    for (size_t size = 1 << 20; size >= 1 << 10; size /= 2) {
        while (count < 4000 && (blocks[count] = do_malloc(size)) != NULL)
            count++;
        failed++;
        for (int i = 0; i < 2 && count > 0; i++) /* half of it goes to the next size */
            do_free(blocks[--count]);
    }
    need(failed == 11 && count < 4000 && do_malloc(1 << 24) == NULL, "memory did not run out");
    limit.rlim_cur = RLIM_INFINITY; /* to ask for statistics takes memory as well */
    need(setrlimit(RLIMIT_AS, &limit) == 0, "no limit");
#elif defined FORK
    start(work_and_wait, threads);
    pthread_barrier_wait(&ready);
    usleep(50000);
    die_in_child();
#elif defined FORK_STORM
    start(work_on, threads);
    pthread_barrier_wait(&ready);
    usleep(50000);
    die_in_child();
#elif defined HANDLER
    start(work_on, threads);
    pthread_barrier_wait(&ready);
    stop_in_handler();
    work(1, 0);
#endif
#ifndef SAMPLING /* which counts small blocks as large ones */
    say_allocated_bytes();
#endif
    die_by_abort();
}
