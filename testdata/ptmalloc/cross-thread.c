/* Two threads free the same block; each has its own cache, so glibc notices nothing. The first one's list is p -> q, and
 * becomes p -> r, as p's link is now the second thread's. With TAKEN the second thread has got p back since, which clears p's
 * key in the first one's list. */
#include "ptmalloc.h"

static UNUSED char *blocks[6];
static pthread_barrier_t first, second;

static void *other(void *nothing)
{
    do_free(blocks[3]);
    do_free(blocks[4]);
    do_free(blocks[1]);
#ifdef TAKEN
    need(do_malloc(56) == blocks[1], "malloc gave another block");
#endif
    pthread_barrier_wait(&first);
    pthread_barrier_wait(&second);
    return nothing;
}

static void scene(void)
{
    pthread_t id;
    take(blocks, 6, 56);
    do_free(blocks[2]);
    do_free(blocks[1]);
    pthread_barrier_init(&first, NULL, 2);
    pthread_barrier_init(&second, NULL, 2);
    need(pthread_create(&id, NULL, other, NULL) == 0, "no thread");
    pthread_barrier_wait(&first);
#ifdef TAKEN
    expect_block("double-free", blocks[1], 56, "or=use-after-free-write");
#else
    expect_block("double-free", blocks[1], 56, "threads=2");
#endif
}
