/* Healthy heaps with something unusual about them. Each aborts. By variant:
 *   STATS      a mix of sizes, much of it freed: what is in use, to the byte. Without a cache (tunable) mallinfo has to agree.
 *   LARGE      blocks with mappings of their own, aligned and reallocated ones among them
 *   ALIGNED    blocks with alignments from 32 bytes to 64 KiB
 *   NEVER      the program itself never allocates
 *   TRIMMED    much is freed and given back to the system, within the heap as well
 *   EXITED     threads that allocated and freed have ended; what they handed out is in use
 *   ARENAS     threads with arenas of their own, with several heaps each, and blocks that other threads freed
 *   CACHED_LISTS  every list of the cache is full, of several threads
 *   ENOMEM     malloc has failed for want of address space, many times, in several sizes
 *   SBRK       the program calls sbrk itself, so there are foreign pieces in the heap
 *   NO_BRK     the heap cannot grow in place: the main arena has several pieces
 *   HANDLER    a signal handler aborts while its thread is, most likely, in the middle of malloc or free; ALTSTACK: the
 *              handler has a stack of its own
 *   FORK       the child of a process with threads, forked while they were outside the allocator
 *   FORK_STORM the same, forked while they were hammering the allocator */
#include "ptmalloc.h"
#include "busy.h"
#include <sys/mman.h>
#include <sys/resource.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

enum { BLOCKS = 4000 };
static UNUSED char *blocks[BLOCKS];

/* Usable bytes of a block that only this program has. A wholly static program's libc has allocated some before main, one of
 * them for the directory that the program lies in. */
static UNUSED size_t own_class(void)
{
#ifdef STATIC
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path);
    need(length > 0, "/proc/self/exe cannot be read");
    while (path[length - 1] != '/')
        length--;
    if (length > 0x48 - 1 && length <= 0x58 + 1) /* with or without the last slash and a zero byte */
        return 0x78;
#endif
    return 0x58;
}

/* What malloc_usable_size says of all blocks that are there. */
static UNUSED void say_in_use(void)
{
    struct line line = {{0}, 0};
    size_t own = own_class();
    uint64_t bytes = 0, count = 0, chunks = 0, with_headers = 0, class48 = 0, in_own = 0;
    for (int i = 0; i < BLOCKS; i++) {
        if (!blocks[i])
            continue;
        size_t size = malloc_usable_size(blocks[i]);
        count++;
        bytes += size;
        class48 += size == 0x28;
        in_own += size == own;
        if ((*size_word(blocks[i]) & 2) == 0) {
            chunks++;
            with_headers += size + 8;
        }
    }
#ifdef WITHOUT_CACHE
    /* mallinfo's own figure counts headers, and the structure of the cache that nobody uses where there is one. 2.31's is
     * some bytes off what any sum of chunks can be. */
#if GLIBC >= 33
    uint64_t in_arena = mallinfo2().uordblks;
#else
    uint64_t in_arena = (uint64_t)(unsigned)mallinfo().uordblks & ~(uint64_t)15;
#endif
    need(in_arena == with_headers || in_arena == with_headers + 0x290, "mallinfo disagrees");
#endif
#ifdef STATIC
    (void)line, (void)bytes, (void)count, (void)class48;
#else
    put_text(&line, "STAT");
    put_count(&line, "in_use_bytes", bytes);
    put_count(&line, "in_use_blocks", count);
    put_end(&line);
    say_class(0x28, class48, -1);
#endif
    say_class(own, in_own, -1);
}

/* Keeps blocks in `blocks`, some of each kind of size. */
static UNUSED void mix(uint32_t seed, int rounds, size_t largest)
{
    for (int i = 0; i < rounds; i++) {
        uint32_t at = next(&seed) % BLOCKS;
        do_free(blocks[at]);
        size_t size = next(&seed) % 8 ? 1 + next(&seed) % 300 : 1 + next(&seed) % largest;
        blocks[at] = next(&seed) % 3 ? (char *)do_malloc(size) : NULL;
        if (blocks[at])
            memset(blocks[at], (int)at, size < 500 ? size : 500);
    }
}

static UNUSED char *handed[THREADS][SLOTS];

static UNUSED void *work_and_wait(void *seed)
{
#ifdef ARENAS
    static void *volatile keep[THREADS][40];
    for (int i = 0; i < 40; i++) /* more than one heap holds, and untouched, so that the core stays small */
        keep[(uintptr_t)seed % THREADS][i] = do_malloc(120000 + 512 * (size_t)i);
    do_free(keep[(uintptr_t)seed % THREADS][20]);
#endif
    work((uint32_t)(uintptr_t)seed, 20000);
    for (int i = 0; i < SLOTS; i++)
        handed[(uintptr_t)seed % THREADS][i] = (char *)do_malloc((size_t)(i % 7) * 50 + 8);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&ready);
    for (int i = 0; i < SLOTS; i += 3) /* those of another thread */
        do_free(handed[((uintptr_t)seed + 1) % THREADS][i]);
    wait_for_ever();
}

static UNUSED void *cache_and_wait(void *nothing)
{
    for (size_t size = 8; size <= 1032; size += 16) {
        char *taken[CACHED];
        for (int i = 0; i < CACHED; i++)
            taken[i] = (char *)do_malloc(size);
        for (int i = 0; i < CACHED; i++)
            do_free(taken[i]);
    }
    (void)nothing;
    wait_for_ever();
}

static void scene(void)
{
    pthread_t threads[THREADS];
    (void)threads;
    say("HEALTHY");
#if defined STATS
    mix(7, 30000, 3000);
    say_in_use();
#elif defined LARGE
    mix(9, 3000, 3000);
    for (int i = 0; i < 24; i++) {
        do_free(blocks[i]);
        blocks[i] = (char *)do_malloc(140000 + 10000 * (size_t)(i % 11));
    }
    for (int i = 24; i < 32; i++) {
        do_free(blocks[i]);
        blocks[i] = (char *)memalign(i % 2 ? 0x1000 : 0x40, 200000 + 5000 * (size_t)i);
    }
    for (int i = 0; i < 24; i += 3) {
        do_free(blocks[i]);
        blocks[i] = NULL;
    }
    blocks[1] = (char *)realloc(blocks[1], 400000);
    blocks[2] = (char *)realloc(blocks[2], 150000);
    say_in_use();
#elif defined ALIGNED
    for (int i = 0; i < 600; i++)
        blocks[i] = (char *)memalign((size_t)32 << i % 12, 1 + (size_t)(i * 37 % 700));
    for (int i = 0; i < 600; i += 3) {
        do_free(blocks[i]);
        blocks[i] = NULL;
    }
    say_in_use();
#elif defined TRIMMED
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = (char *)memset(do_malloc(1 + (size_t)(i * 131 % 6000)), i, 1);
    for (int i = 0; i < BLOCKS; i++)
        if (i % 40 || i > 3000) {
            do_free(blocks[i]);
            blocks[i] = NULL;
        }
    malloc_trim(0);
    mix(5, 500, 3000);
    malloc_trim(1000);
    say_in_use();
#elif defined EXITED
    for (int round = 0; round < 3; round++) {
        start(work_and_end, threads);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
    }
#elif defined ARENAS
    start(work_and_wait, threads);
    for (int i = 0; i < 3; i++)
        pthread_barrier_wait(&ready);
    usleep(50000);
#elif defined CACHED_LISTS
    start(cache_and_wait, threads);
    pthread_barrier_wait(&ready);
    usleep(50000);
#elif defined ENOMEM
    size_t count = 0, failed = 0;
    struct rlimit limit = {1 << 27, 1 << 27};
    need(setrlimit(RLIMIT_AS, &limit) == 0, "no limit");
    for (size_t size = 1 << 20; size >= 1 << 10; size /= 2) {
        while (count < BLOCKS && (blocks[count] = (char *)do_malloc(size)) != NULL)
            count++;
        failed++;
        for (int i = 0; i < 2 && count > 0; i++) { /* half of it goes to the next size */
            do_free(blocks[--count]);
            blocks[count] = NULL;
        }
    }
    need(failed == 11 && count < BLOCKS && do_malloc(1 << 24) == NULL, "memory did not run out");
    say_in_use();
#elif defined SBRK
    uint32_t seed = 11;
    for (int i = 0; i < 3000; i++) {
        blocks[i] = (char *)do_malloc(1 + next(&seed) % 1000);
        if (i % 500 == 250)
            memset(sbrk(10000), 'S', 10000);
    }
    for (int i = 0; i < 3000; i += 2) {
        do_free(blocks[i]);
        blocks[i] = NULL;
    }
    say_in_use();
#elif defined NO_BRK
    for (int i = 0; i < 400; i++)
        blocks[i] = (char *)do_malloc(200 + (size_t)i);
    /* A page just behind the heap's end: from here on it grows elsewhere. */
    void *end = sbrk(0);
    need(mmap(end, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == end, "no page behind the heap");
    for (int i = 400; i < 3400; i++)
        blocks[i] = (char *)do_malloc(200 + (size_t)i % 900);
    for (int i = 0; i < 3400; i += 3) {
        do_free(blocks[i]);
        blocks[i] = NULL;
    }
    say_in_use();
#elif defined HANDLER
    stop_in_handler();
    work(3, 0);
#elif defined FORK
    start(work_and_wait, threads);
    for (int i = 0; i < 3; i++)
        pthread_barrier_wait(&ready);
    usleep(100000);
    die_in_child();
#elif defined FORK_STORM
    start(work_on, threads);
    pthread_barrier_wait(&ready);
    usleep(200000);
    die_in_child();
#endif
}
