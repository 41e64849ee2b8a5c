/* A big heap for measurements: generate-heap BYTES BLOCKS [THREADS [SEED]] [--damage double-free|overrun] [--lost FILE]
 *
 * Allocates BLOCKS blocks of BYTES bytes altogether (about) by THREADS threads, sizes from a twentieth of the average to four
 * times it and a few of 300000 bytes, writes into every byte, links each block to an earlier one, frees a random third of them
 * in random order, one in eight by another thread than the one that took it, so that free lists are long and scattered;
 * plants the damage, in the class of 48 bytes of the main thread; and aborts. The threads are still there then, all waiting.
 *
 * The damage is made for tcmalloc. Without damage it prints HEALTHY and STAT, for any allocator.
 *
 * With --lost it forgets one in fifty of the blocks that are left, and writes the addresses of those that no other block holds,
 * by no way, into FILE: 8 bytes each. */
#define OWN_MAIN
#include ALLOCATOR /* its header: say_allocated_bytes, and the names of malloc and free */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

static size_t bytes, blocks_per_thread, threads = 4;
static uint64_t first_seed = 1;
static char **blocks; /* of all threads, one part after the other */
static pthread_barrier_t taken, given;

static uint64_t next64(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t some_size(uint64_t *state, size_t average)
{
    /* In eighths of the average; their mean is 8. */
    static const unsigned char eighths[16] = {1, 1, 2, 2, 2, 4, 4, 4, 6, 6, 8, 8, 12, 16, 20, 32};
    uint64_t random = next64(state);
    if (random >> 48 == 0)
        return 300000;
    size_t size = average * eighths[random % 16] / 8;
    return size + (random >> 8) % (size / 4 + 1) - size / 8 + 1;
}

static void *run(void *number)
{
    size_t me = (size_t)number, average = bytes / (blocks_per_thread * threads);
    uint64_t state = first_seed * 0x9e3779b97f4a7c15 + me * 0xbf58476d1ce4e5b9 + 1;
    char **mine = blocks + me * blocks_per_thread;
    for (size_t i = 0; i < blocks_per_thread; i++) {
        size_t size = some_size(&state, average);
        char *block = (char *)do_malloc(size);
        need(block != NULL, "no memory");
        memset(block, (int)(next64(&state) | 1), size);
        if (size >= 16 && i > 0)
            memcpy(block + 8, &mine[next64(&state) % i], sizeof(char *));
        mine[i] = block;
    }
    for (size_t i = blocks_per_thread - 1; i > 0; i--) {
        size_t other = next64(&state) % (i + 1);
        char *swapped = mine[i];
        mine[i] = mine[other];
        mine[other] = swapped;
    }
    pthread_barrier_wait(&taken);
    char **others = blocks + (me + 1) % threads * blocks_per_thread;
    size_t third = blocks_per_thread / 3;
    for (size_t i = 0; i < third; i++) { /* every eighth of one's own is left to the neighbour */
        if (i % 8 != 0)
            do_free(mine[i]);
        else
            do_free(others[i]);
    }
    pthread_barrier_wait(&given);
    for (;;)
        pause();
    return NULL;
}

static void plant_double_free(void)
{
    char *p = (char *)do_malloc(48), *q = (char *)do_malloc(48);
    do_malloc(48); /* or the third one fetched would be on the list, which would then be flushed */
    do_free(p);
    do_free(q);
    do_free(p);
    need(*(char *volatile *)p == q && *(char *volatile *)q == p, "no circle");
    expect("double-free", p, p, 48, NULL, NULL);
}

static void plant_overrun(void)
{
    enum { TRIES = 100000 };
    static char *tried[TRIES];
    for (int i = 0; i < TRIES; i++) {
        tried[i] = (char *)do_malloc(48);
        memset(tried[i], 'A', 48);
        if (i < 2 || tried[i] != tried[i - 1] + 48 || ((uintptr_t)tried[i - 2] & 0xff) == 0)
            continue;
        do_free(tried[i - 2]);
        do_free(tried[i]);
        need(*(char *volatile *)tried[i] == tried[i - 2], "not at the head of the list");
        *(volatile char *)(tried[i - 1] + 48) = 0;
        expect("heap-overrun", tried[i], tried[i], 48, tried[i - 1], "overwriter=zero");
        return;
    }
    give_up("no two neighbours");
}

static int by_address(const void *one, const void *other)
{
    const char *a = *(char *const *)one, *b = *(char *const *)other;
    return (a > b) - (a < b);
}

static char **forgotten;
static size_t forgotten_count;
static unsigned char *is_held;

/* Notes that a block holds what it links to, and what that one links to. */
static void hold(const char *block)
{
    for (;;) {
        char *target = *(char *const *)(block + 8);
        char **found = bsearch(&target, forgotten, forgotten_count, sizeof *forgotten, by_address);
        if (!found || is_held[found - forgotten])
            return;
        is_held[found - forgotten] = 1;
        block = target;
    }
}

/* Memory for the bookkeeping: none of the allocator's. */
static void *pages(size_t wanted)
{
    void *made = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(made != MAP_FAILED, "no memory");
    return made;
}

/* The blocks of which the program keeps no pointer. */
static int is_forgotten(uint64_t *state)
{
    return next64(state) % 50 == 0;
}

/* In a child, whose sorting and searching leaves no pointer in the memory or the registers of the process that dies. */
static void write_lost(const char *file)
{
    size_t third = blocks_per_thread / 3, all = blocks_per_thread * threads;
    uint64_t state = first_seed;
    forgotten = pages(all * sizeof *forgotten);
    is_held = pages(all);
    for (size_t i = 0; i < all; i++)
        if (i % blocks_per_thread >= third && is_forgotten(&state))
            forgotten[forgotten_count++] = blocks[i];
    qsort(forgotten, forgotten_count, sizeof *forgotten, by_address);
    state = first_seed;
    for (size_t i = 0; i < all; i++)
        if (i % blocks_per_thread >= third && !is_forgotten(&state))
            hold(blocks[i]);
    size_t lost = 0;
    for (size_t i = 0; i < forgotten_count; i++)
        if (!is_held[i])
            forgotten[lost++] = forgotten[i];
    int to = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    need(to >= 0, "cannot write the file of lost blocks");
    for (size_t done = 0, size = lost * sizeof *forgotten; done < size;) {
        ssize_t wrote = write(to, (char *)forgotten + done, size - done);
        need(wrote > 0, "cannot write the file of lost blocks");
        done += (size_t)wrote;
    }
}

static void forget(const char *file)
{
    size_t third = blocks_per_thread / 3, all = blocks_per_thread * threads;
    int status = 1;
    pid_t child = fork();
    if (child == 0) {
        write_lost(file);
        _exit(0);
    }
    need(child > 0 && waitpid(child, &status, 0) == child && status == 0, "the lost blocks were not written down");
    uint64_t state = first_seed;
    for (size_t i = 0; i < all; i++)
        if (i % blocks_per_thread < third || is_forgotten(&state))
            ((char *volatile *)blocks)[i] = NULL;
}

int main(int argc, char **argv)
{
    const char *damage = NULL, *lost = NULL;
    size_t numbers[4] = {0, 0, threads, first_seed};
    int count = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--damage") == 0 && i + 1 < argc)
            damage = argv[++i];
        else if (strcmp(argv[i], "--lost") == 0 && i + 1 < argc)
            lost = argv[++i];
        else if (count < 4)
            numbers[count++] = strtoull(argv[i], NULL, 0);
    }
    bytes = numbers[0];
    threads = numbers[2];
    first_seed = numbers[3];
    if (bytes == 0 || numbers[1] == 0 || threads == 0)
        give_up("usage: generate-heap BYTES BLOCKS [THREADS [SEED]] [--damage double-free|overrun] [--lost FILE]");
    blocks_per_thread = numbers[1] / threads;
    blocks = (char **)mmap(NULL, blocks_per_thread * threads * sizeof *blocks, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(blocks != MAP_FAILED, "no memory");
    pthread_barrier_init(&taken, NULL, (unsigned)threads);
    pthread_barrier_init(&given, NULL, (unsigned)threads + 1);
    for (size_t i = 0; i < threads; i++) {
        pthread_t thread;
        need(pthread_create(&thread, NULL, run, (void *)i) == 0, "no thread");
    }
    pthread_barrier_wait(&given);
    if (lost)
        forget(lost);
    if (!damage) {
        say("HEALTHY");
        say_allocated_bytes();
    } else if (strcmp(damage, "double-free") == 0)
        plant_double_free();
    else if (strcmp(damage, "overrun") == 0)
        plant_overrun();
    else
        give_up("no such damage");
    die_by_abort();
}
