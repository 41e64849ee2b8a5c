/* Healthy heaps with something unusual about them. Each aborts. By variant:
 *   LARGE       large blocks only, some of them freed, neighbours among them
 *   NEVER       the program itself never allocates
 *   RELEASED    a mix of sizes, much of it freed and given back to the system
 *   EXITED      threads that allocated and freed have ended; what they handed out is in use
 *   ENOMEM      malloc has failed for want of address space, many times, in several sizes
 *   SBRK        the program calls sbrk itself, so there are foreign pieces in the heap
 *   HANDLER     a signal handler aborts while its thread is, most likely, in the middle of malloc or free; ALTSTACK: the
 *               handler has a stack of its own
 *   FORK        the child of a process with threads, forked while they were outside the allocator
 *   FORK_STORM  the same, forked while they were hammering the allocator: in the child their caches are left as they
 *               were, in the middle of something, with no thread that could say so */
#include "tcmalloc.h"
#include "busy.h"
#include <sys/resource.h>

static UNUSED void *work_and_wait(void *seed)
{
    work((uint32_t)(uintptr_t)seed, 20000);
    wait_for_ever();
}

int main(void)
{
    pthread_t threads[THREADS];
    (void)threads;
    say("HEALTHY");
#if defined LARGE
    char *blocks[40];
    for (int i = 0; i < 40; i++)
        blocks[i] = (char *)do_malloc(270000 + 50000 * (size_t)(i % 11));
    for (int i = 0; i < 40; i += 3)
        do_free(blocks[i]);
    do_free(blocks[10]);
    do_free(blocks[20]);
    do_free(blocks[11]);
    char *volatile huge = (char *)do_malloc(40000000);
    need(huge != NULL, "no memory");
    say_allocated_bytes();
#elif defined NEVER
    say_allocated_bytes();
#elif defined RELEASED
    static char *blocks[3000];
    uint32_t seed = 7;
    for (int i = 0; i < 3000; i++)
        blocks[i] = (char *)do_malloc(1 + next(&seed) % 30000);
    for (int i = 0; i < 2000; i++)
        do_free(blocks[i]);
    MallocExtension_ReleaseFreeMemory();
    for (int i = 2000; i < 3000; i += 3)
        do_free(blocks[i]);
    for (int i = 0; i < 100; i++)
        blocks[i] = (char *)do_malloc(1 + next(&seed) % 300000);
    say_allocated_bytes();
#elif defined EXITED
    for (int round = 0; round < 3; round++) {
        start(work_and_end, threads);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
    }
    say_allocated_bytes();
#elif defined ENOMEM
    static void *blocks[4000];
    size_t count = 0, failed = 0;
    struct rlimit limit = {1 << 28, 1 << 28};
    need(setrlimit(RLIMIT_AS, &limit) == 0, "no limit");
    for (size_t size = 1 << 20; size >= 1 << 10; size /= 2) {
        while (count < 4000 && (blocks[count] = do_malloc(size)) != NULL)
            count++;
        failed++;
        for (int i = 0; i < 2 && count > 0; i++) /* half of it goes to the next size */
            do_free(blocks[--count]);
    }
    need(failed == 11 && count < 4000 && do_malloc(1 << 24) == NULL, "memory did not run out");
    say_allocated_bytes();
#elif defined SBRK
    static char *blocks[3000];
    uint32_t seed = 11;
    for (int i = 0; i < 3000; i++) {
        blocks[i] = (char *)do_malloc(1 + next(&seed) % 4000);
        if (i % 500 == 250)
            memset(sbrk(10000), 'S', 10000);
    }
    for (int i = 0; i < 3000; i += 2)
        do_free(blocks[i]);
    say_allocated_bytes();
#elif defined HANDLER
    stop_in_handler();
    work(3, 0);
#elif defined FORK
    start(work_and_wait, threads);
    pthread_barrier_wait(&ready);
    usleep(100000);
    die_in_child();
#elif defined FORK_STORM
    start(work_on, threads);
    pthread_barrier_wait(&ready);
    usleep(200000);
    die_in_child();
#endif
    die_by_abort();
}
