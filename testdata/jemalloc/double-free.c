/* A block of SIZE bytes is freed twice and nothing else is wrong. The program aborts before the damage shows. jemalloc keeps its
 * lists of free blocks outside the blocks, so none is ever a circle. By variant, what remains:
 *   (none)     twice in a row: the pointer is twice in the thread's cache
 *   SPACED     other blocks of the class freed in between
 *   THREADS    by two threads: it is in the caches of both
 *   ARENA      by two threads that have an arena of their own each
 *   SLAB       its first free has gone to the slab: it is in the cache although the slab says free
 *   RETURNED   both have gone to the slab, where the second turned the mark back: more frees counted than blocks free. Which
 *              block of the slab it was is not known any more: `address` is the slab
 *   EXTENT     of a large block, the first free has gone to the page cache: what is cached is no block in use */
#include "jemalloc/jemalloc.h"

#ifndef SIZE
#define SIZE 64
#endif
enum { BLOCKS = 8 };
static pthread_barrier_t freed;
static char *volatile given;

static void wait_for_ever(void)
{
    for (;;)
        pause();
}

static UNUSED void *free_in_thread(void *unused)
{
#ifdef ARENA
    unsigned arena = 0;
    size_t length = sizeof arena;
    need(mallctl("arenas.create", &arena, &length, NULL, 0) == 0, "no arena");
    need(mallctl("thread.arena", NULL, NULL, &arena, sizeof arena) == 0, "no arena for the thread");
#endif
    char *volatile own = (char *)do_malloc(SIZE);
    do_free(own);
    do_free(given);
    pthread_barrier_wait(&freed);
    wait_for_ever();
    return unused;
}

int main(void)
{
    char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = (char *)do_malloc(SIZE);
    char *p = blocks[3];
    const char *more = NULL;
    void *address = p, *block = p;
    do_free(p);
#if defined SPACED
    do_free(blocks[5]);
    do_free(blocks[1]);
    do_free(p);
    do_free(blocks[6]);
#elif defined THREADS || defined ARENA
    pthread_t thread;
    given = p;
    pthread_barrier_init(&freed, NULL, 2);
    need(pthread_create(&thread, NULL, free_in_thread, NULL) == 0, "no thread");
    pthread_barrier_wait(&freed);
    more = "threads=2";
#elif defined SLAB || defined EXTENT
    flush();
    do_free(p);
#ifdef EXTENT
    block = NULL; /* where it began within its page is not known any more */
#endif
#elif defined RETURNED
    flush();
    do_free(p);
    flush();
    /* A slab of these sizes is a power of two pages long, but where it starts only its own first region says. */
    need(SIZE == 64, "the slab's size is not known");
    address = (void *)((uintptr_t)p & ~(uintptr_t)4095);
    block = NULL;
#else
    do_free(p);
#endif
    (void)free_in_thread;
    expect("double-free", address, block, SIZE, NULL, more);
    die_by_abort();
}
