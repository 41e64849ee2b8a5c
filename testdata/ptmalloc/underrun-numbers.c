/* An array of ints is filled from its end to its start, and on in front of it: the upper halves of such numbers are zeros, as those of a
 * size are.
 *   (none)   the header
 *   FURTHER  and the last four bytes of the block before */
#include "ptmalloc.h"

static void scene(void)
{
    enum { COUNT = 18 };
    char *blocks[4];
    take(blocks, 4, COUNT * sizeof(int));
    memset(blocks[1], 0, COUNT * sizeof(int));
    volatile int *block = (volatile int *)blocks[2];
#ifdef FURTHER
    int last = -3;
#else
    int last = -2;
#endif
    for (int i = COUNT - 1; i >= last; i--)
        block[i] = 0x2a2a;
    expect_entry("heap-underrun", block, NULL, NULL);
}
