/* A member at the start of a freed object is counted down (or a text is written over it, TEXT), then malloc takes that block
 * and stores its link as the head of the thread cache's list.
 *
 * What remains: a head that no block is, beside it a length, a size and limits that are as they should be, and the block that
 * was handed out, whose first word is that head still. */
#include "common.h"

enum { SIZE = 96, BLOCKS = 200 };

int main(void)
{
    static char *blocks[BLOCKS];
    for (int round = 0; round < 30; round++) { /* until the cache keeps them all */
        for (int i = 0; i < BLOCKS; i++)
            blocks[i] = (char *)do_malloc(SIZE);
        for (int i = 0; i < BLOCKS; i++)
            do_free(blocks[i]);
    }
    volatile uint64_t *link = (uint64_t *)blocks[BLOCKS - 6];
    need(*link == (uintptr_t)blocks[BLOCKS - 7], "the list is not as it was freed");
#ifdef TEXT
    memcpy((void *)link, "shutdown", 8);
#else
    --*link;
#endif
    for (int i = 0; i < 6; i++) {
        char *taken = (char *)do_malloc(SIZE);
        need(taken == blocks[BLOCKS - 1 - i], "malloc took another block");
    }
    expect("use-after-free-write", link, link, SIZE, NULL, NULL);
    die_by_abort();
}
