/* What happens to large chunks, and to the largest.
 *   TWICE   a block that is in a large bin, sorted by size, is freed again: glibc refuses it
 *   TOP     a wild write hits the size of the top chunk; the block before it is untouched */
#include "ptmalloc.h"

static char *blocks[6];

static void scene(void)
{
#if defined TWICE
    take(blocks, 6, 2000);
    do_free(blocks[1]);
    do_free(blocks[3]);
    do_malloc(5000); /* sorts them */
    expect_block("double-free", blocks[1], usable(blocks[1]), NULL);
    dies_saying("double_free_or_corruption_(!prev)");
    do_free(blocks[1]);
    _exit(95);
#elif defined TOP
    take(blocks, 3, 2000);
    char *top = blocks[2] + usable(blocks[2]) + 8;
    *(volatile uint32_t *)size_word(top) = 0x40490fdb;
    expect_entry("corrupt-metadata", top, NULL, "or=heap-overrun");
#endif
}
