/* Heaps that cost a reader more than their size tells: speed WHAT N
 *
 * holes N     N blocks of 100 MB from calloc, never touched, in the heap itself: all but their headers are holes of the core.
 * mapped N    the same with mappings of their own.
 * small N     N blocks of 16 to 500 bytes, a third of them free.
 * fastbin N   N blocks of one size on one list without caches, freed in random order.
 * arenas N    N arenas of threads that have ended.
 * threads N   N threads that wait, each with 200 blocks of which some are free; "own N" with an arena for each of them.
 *
 * Aborts. For glibc; GLIBC_TUNABLES=glibc.malloc.tcache_count=0 leaves the caches out. */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_barrier_t together;
static char **blocks;

static uint64_t next64(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void *one_block(void *unused)
{
    char *block = malloc(100);
    if (block != NULL)
        strcpy(block, "a block of an arena of its own");
    __asm__ volatile("" : : "r"(block) : "memory");
    pthread_barrier_wait(&together);
    return unused;
}

static void *wait_for_ever(void *unused)
{
    char *mine[200];
    for (size_t i = 0; i < 200; i++) {
        mine[i] = malloc(16 + i * 37 % 400);
        if (mine[i] == NULL)
            abort();
        memset(mine[i], 1, 16);
    }
    for (size_t i = 0; i < 200; i += 3)
        free(mine[i]);
    pthread_barrier_wait(&together);
    for (;;)
        pause();
    return unused;
}

static void shuffle(size_t count)
{
    for (size_t i = count - 1; i > 0; i--) {
        size_t other = next64() % (i + 1);
        char *swapped = blocks[i];
        blocks[i] = blocks[other];
        blocks[other] = swapped;
    }
}

static void take(size_t count, size_t least, size_t range)
{
    blocks = malloc(count * sizeof *blocks);
    for (size_t i = 0; i < count; i++) {
        size_t size = least + (range > 0 ? next64() % range : 0);
        blocks[i] = malloc(size);
        memset(blocks[i], 1, size);
    }
}

int main(int count, char **arguments)
{
    const char *what = count > 2 ? arguments[1] : "";
    size_t number = count > 2 ? strtoul(arguments[2], NULL, 10) : 0;
    if (strcmp(what, "holes") == 0 || strcmp(what, "mapped") == 0) {
        if (*what == 'h')
            mallopt(M_MMAP_THRESHOLD, 1 << 30);
        blocks = malloc(number * sizeof *blocks);
        for (size_t i = 0; i < number; i++)
            blocks[i] = calloc(100 << 20, 1);
    } else if (strcmp(what, "small") == 0) {
        take(number, 16, 485);
        shuffle(number);
        for (size_t i = 0; i < number / 3; i++)
            free(blocks[i]);
    } else if (strcmp(what, "fastbin") == 0) {
        take(number, 24, 0);
        shuffle(number);
        for (size_t i = 0; i < number; i++)
            free(blocks[i]);
    } else if (strcmp(what, "arenas") == 0 || strcmp(what, "threads") == 0 || strcmp(what, "own") == 0) {
        int ends = *what == 'a';
        if (*what != 't')
            mallopt(M_ARENA_MAX, (int)number + 1);
        pthread_t *threads = calloc(number, sizeof *threads);
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 64 << 10);
        pthread_barrier_init(&together, NULL, (unsigned)number + !ends);
        for (size_t i = 0; i < number; i++)
            if (pthread_create(&threads[i], &small, ends ? one_block : wait_for_ever, NULL) != 0)
                return 1;
        if (!ends)
            pthread_barrier_wait(&together);
        for (size_t i = 0; ends && i < number; i++)
            pthread_join(threads[i], NULL);
    } else {
        fprintf(stderr, "usage: speed holes|mapped|small|fastbin|arenas|threads|own NUMBER\n");
        return 2;
    }
    abort();
}
