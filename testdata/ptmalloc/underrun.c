/* Bytes before the start of a block are written: its own header. The block before it is untouched, its last bytes are zero.
 *   (none)   the eight bytes before it
 *   HALF   the four bytes before it: the upper half of its size
 *   THROUGH   the eight bytes before it and its first eight, all alike
 *   MMAPPED   the same before a block that has a mapping of its own */
#include "ptmalloc.h"

static void scene(void)
{
#ifdef MMAPPED
    volatile char *before = (volatile char *)do_malloc(300000);
    volatile char *p = (volatile char *)do_malloc(300000);
    need((*size_word(p) & 7) == 2 && before != NULL, "the block has no mapping of its own");
    *size_word(p) = 0xfffffffbfffffffb;
    expect_entry("corrupt-metadata", p, NULL, "or=heap-underrun");
#else
    char *blocks[6];
    take(blocks, 6, 72);
    for (int i = 0; i < 6; i++)
        memset(blocks[i], 0, 72);
    volatile int *p = (volatile int *)blocks[3];
    p[-1] = -5;
#ifdef HALF
    expect_entry("heap-underrun", p, NULL, "");
#else
    p[-2] = -5;
#ifdef THROUGH
    p[0] = p[1] = -5;
    expect_entry("heap-underrun", p, NULL, "");
#else
    expect_entry("heap-underrun", p, NULL, "or=heap-overrun");
#endif
#endif
#endif
}
