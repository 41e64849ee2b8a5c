/* The first eight bytes of a freed block p are written: a small integer, or (PATTERN_*) a text, a pointer to a global
 * variable, a float, or zeros. Aborts at once.
 *
 * What remains: the thread cache's list is p -> the pattern, recorded length 2. That it was no overrun is decidable: the
 * block before p in the span is free too, and the bytes at its end were never written (zero from the fresh span).
 * PATTERN_WHOLE: the block was the last one that was cut from its span; the thread that had it has ended, so that it is the first of the
 * span's own list again, as if nobody had ever had it; the block before it is in use. It is filled as a whole.
 * With zeros the list looks properly ended, but one block short of its length: a count-mismatch is as good an answer. */
#include "common.h"

#ifndef SIZE
#define SIZE 48
#endif

#ifdef PATTERN_WHOLE
static void *take_and_give_back(void *place)
{
    char *block = (char *)do_malloc(SIZE);
    *(char **)place = block;
    do_free(block);
    return NULL;
}

int main(void)
{
    char *before = (char *)do_malloc(SIZE);
    memset(before, 0, SIZE);
    char *p = NULL;
    pthread_t thread;
    need(pthread_create(&thread, NULL, take_and_give_back, &p) == 0, "a thread");
    pthread_join(thread, NULL);
    need(p == before + SIZE, "the blocks are not neighbours");
    need(*(char **)p == p + SIZE, "the block is not back on its span's list");
    memset(p, 3, SIZE);
    expect("use-after-free-write", p, p, SIZE, NULL, NULL);
    die_by_abort();
}
#else
int main(void)
{
    static double balance;
    char *blocks[6];
    for (int i = 0; i < 6; i++)
        blocks[i] = (char *)do_malloc(SIZE);
    char *p = blocks[3];
    need(blocks[2] + SIZE == p, "the blocks are not neighbours");
    do_free(blocks[2]);
    do_free(p);
    volatile uint64_t *word = (volatile uint64_t *)p;
    need(*word == (uintptr_t)blocks[2], "p is not the head of the list");
#if defined PATTERN_TEXT
    memcpy((void *)word, "shutdown", 8);
    const char *more = "overwriter=ascii";
#elif defined PATTERN_POINTER
    *word = (uintptr_t)&balance;
    const char *more = "overwriter=pointer";
#elif defined PATTERN_FLOAT
    *(volatile double *)word = -1234.5678;
    const char *more = "overwriter=float";
#elif defined PATTERN_ZERO
    *word = 0;
    const char *more = "overwriter=zero or=count-mismatch";
#else
    *word = 1042;
    const char *more = "overwriter=small-integer";
#endif
    (void)balance;
    expect("use-after-free-write", p, p, SIZE, NULL, more);
    die_by_abort();
}
#endif
