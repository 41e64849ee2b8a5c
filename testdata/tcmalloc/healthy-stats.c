/* A healthy heap whose counts are known: blocks of five classes that nothing uses at start-up, some freed again, and
 * three large blocks, one of them freed. One thread; aborts.
 * Free blocks are counted for the two classes where it is sure how many blocks have been cut: 1500 to 1530 of 48 bytes are
 * nine pages of 170 each, 20 to 39 of 208 one page; neither is ever empty, so it is not given back. */
#include "tcmalloc.h"

/* `cut`: blocks that exist, used or free; 0 if not known. */
static void mix(size_t size, int take, int give_back, int cut)
{
    char *blocks[2000];
    for (int i = 0; i < take; i++)
        blocks[i] = (char *)do_malloc(size);
    for (int i = 0; i < give_back; i++)
        do_free(blocks[(i * 7) % take]);
    say_class(size, take - give_back, cut ? cut - (take - give_back) : -1);
}

int main(void)
{
    say("HEALTHY");
    mix(48, 1500, 401, 9 * 170);
    mix(208, 20, 3, 39);
    mix(240, 1000, 999, 0);
    mix(3072, 78, 30, 0);
    mix(106496, 5, 2, 0);
    char *volatile kept = (char *)do_malloc(300000);
    char *volatile given = (char *)do_malloc(1200000);
    char *volatile last = (char *)do_malloc(5000000);
    do_free(given);
    need(kept && last, "no memory");
    say_allocated_bytes();
    die_by_abort();
}
