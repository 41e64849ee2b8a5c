/* All blocks of a span are freed and flushed, so that the span goes back to the page heap; then one of them, p, is freed
 * again. tcmalloc still knows the class that its page had (from the page map's cache) and puts p into the thread cache.
 *
 * What remains: the thread cache's list of 48 is p, recorded length 1, and the page of p belongs to a free span.
 * The numbers: 15 blocks are five fetches, so max_length_ is 6; the 7th block freed flushes, max_length_ is 7, and the
 * 8th after that flushes again: 7 + 8 = 15. */
#include "common.h"

enum { SIZE = 48, BLOCKS = 15 };

int main(void)
{
    char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = (char *)do_malloc(SIZE);
    char *p = blocks[5];
    for (int i = 0; i < BLOCKS; i++)
        do_free(blocks[i]);
    do_free(p);
    expect("double-free", p, NULL, 0, NULL, NULL);
    die_by_abort();
}
