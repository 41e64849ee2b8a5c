/* Thread A frees OWN blocks of its own and then p; thread B, after blocks of its own, frees p again. (MAIN_FIRST: the
 * main thread is A.) The program then aborts; both threads have left the allocator.
 *
 * What remains: A's list is p -> B's older blocks, because the second free overwrote p's link; A's OWN older blocks are
 * in no list any more: lost. B's length matches what a walk finds, A's counts the lost ones.
 * All frees stay below max_length_, which grows by one with each fetch of the slow start, so no list is flushed. */
#include "common.h"

#ifndef SIZE
#define SIZE 48
#endif
enum { BLOCKS = 28, OWN_A = 3, OWN_B = 5 };

static char *volatile p;
static pthread_barrier_t first_done, second_done;

static void take(char **blocks)
{
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = (char *)do_malloc(SIZE);
}

static void first(void)
{
    char *blocks[BLOCKS];
    take(blocks);
    for (int i = 0; i < OWN_A; i++)
        do_free(blocks[i]);
    p = blocks[OWN_A];
    do_free(p);
    pthread_barrier_wait(&first_done);
}

static void *run_first(void *unused)
{
    first();
    pthread_barrier_wait(&second_done);
    for (;;)
        pause();
    return unused;
}

static void *run_second(void *unused)
{
    char *blocks[BLOCKS];
    take(blocks);
    pthread_barrier_wait(&first_done);
    for (int i = 0; i < OWN_B; i++)
        do_free(blocks[i]);
    do_free(p);
    pthread_barrier_wait(&second_done);
    for (;;)
        pause();
    return unused;
}

int main(void)
{
    pthread_t a, b;
#ifdef MAIN_FIRST
    pthread_barrier_init(&first_done, NULL, 2);
    pthread_barrier_init(&second_done, NULL, 2);
    need(pthread_create(&b, NULL, run_second, NULL) == 0, "no thread");
    (void)run_first;
    first();
#else
    pthread_barrier_init(&first_done, NULL, 2);
    pthread_barrier_init(&second_done, NULL, 3);
    need(pthread_create(&a, NULL, run_first, NULL) == 0, "no thread");
    need(pthread_create(&b, NULL, run_second, NULL) == 0, "no thread");
#endif
    (void)a;
    pthread_barrier_wait(&second_done);
    struct line line = {{0}, 0};
    put_text(&line, "threads=2");
    put_count(&line, "lost", OWN_A);
    expect("double-free", p, p, SIZE, NULL, line.text);
    die_by_abort();
}
