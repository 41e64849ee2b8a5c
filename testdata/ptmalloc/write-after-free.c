/* A free block is written to. By variant, where the block is:
 *   CACHE      in the thread's cache, with two others behind it
 *   FASTBIN    in a fast bin, likewise
 *   BIN        in the unsorted or a small bin, with links both ways, between two others
 *   LARGE      in a large bin, with links to the next size as well
 * and what is written:
 *   TEXT FLOAT ZERO POINTER   over its first eight bytes (the link)
 *   SECOND                    text over its second eight (the key, or the link back)
 *   WHOLE                     text over all of it
 *   THIRD                     a number over the link to the next size (LARGE) */
#include "ptmalloc.h"

static UNUSED char *blocks[8];
static char variable[64];

static void scene(void)
{
    const char *more = NULL;
    (void)variable;
#if defined CACHE
    enum { SIZE = 56, AT = 4 };
    take(blocks, 6, SIZE);
    do_free(blocks[0]);
    do_free(blocks[2]);
    do_free(blocks[4]);
    do_free(blocks[1]);
#elif defined FASTBIN
    enum { SIZE = 56, AT = 4 };
    take_fillers(SIZE);
    take(blocks, 6, SIZE);
    fill_cache();
    do_free(blocks[0]);
    do_free(blocks[2]);
    do_free(blocks[4]);
    do_free(blocks[1]);
#elif defined BIN
    enum { SIZE = 280, AT = 3 };
    take_fillers(SIZE);
    take(blocks, 7, SIZE);
    fill_cache();
    do_free(blocks[1]);
    do_free(blocks[3]);
    do_free(blocks[5]);
#elif defined LARGE
    enum { SIZE = 2000, AT = 2 };
    for (int i = 0; i < 8; i++) /* sizes of one large bin, with a small block between each two */
        blocks[i] = (char *)do_malloc(i % 2 ? 40 : SIZE + 16 * (size_t)(i / 2));
    for (int i = 0; i < 8; i += 2)
        do_free(blocks[i]);
    do_malloc(4000); /* sorts them */
#endif
    volatile char *p = blocks[AT];
    size_t size = usable(p);
#if defined TEXT
    memcpy((char *)p, "a name of sorts", 8);
    more = "overwriter=ascii";
#elif defined SECOND
    memcpy((char *)p + 8, "a name of sorts", 8);
    more = "overwriter=ascii";
#elif defined WHOLE
    for (size_t i = 0; i < size - 8; i++)
        p[i] = "a name of sorts "[i % 16];
    more = "overwriter=ascii";
#elif defined FLOAT
    *(volatile double *)p = 98.6;
    more = "overwriter=float";
#elif defined ZERO
    *(volatile uint64_t *)p = 0;
#elif defined POINTER
    *(char *volatile *)p = variable + 32;
#elif defined THIRD
    ((volatile uint64_t *)p)[2] = 12345;
#endif
    expect_block("use-after-free-write", p, size, more);
}
