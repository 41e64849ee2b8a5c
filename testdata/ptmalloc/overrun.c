/* Writes past the end of block A, onto the header of the block after it, B. By variant, what B is:
 *   (none)     in use
 *   CACHED_B   in the thread's cache, between two others of its list
 *   BINNED_B   in a bin with links both ways
 *   TOP_B      the rest of the heap
 * and what is written:
 *   NUL        a zero byte, as after a string that just does not fit: B's size 0x101 becomes 0x100
 *   NUL_SIZE   the same where B's size was 0x111: it gets another size, too
 *   ONE        a letter: B's size 0x31 becomes 0x41
 *   TEXT       24 bytes of text
 *   FORCE      all bits set (with TOP_B)
 *   TWO        B's size 0x31 becomes 0x61: it now covers C as well, which is in the cache. With FREED B is freed with that size. */
#include "ptmalloc.h"

static UNUSED char *blocks[8];

#if defined NUL
enum { SIZE = 0xf8 };
#elif defined NUL_SIZE || defined BINNED_B
enum { SIZE = 0x108 };
#else
enum { SIZE = 0x28 };
#endif

static void scene(void)
{
#ifdef BINNED_B
    take_fillers(SIZE);
#endif
    take(blocks, 6, SIZE);
#ifdef BINNED_B
    fill_cache();
#endif
    volatile char *a = blocks[2], *b = blocks[3], *c = blocks[4];
    (void)c;
    memset(blocks[2], 'x', SIZE);
#if defined CACHED_B
    do_free(blocks[0]);
    do_free(blocks[3]);
    do_free(blocks[5]);
#elif defined BINNED_B
    do_free(blocks[3]);
#elif defined TOP_B
    a = blocks[5];
    b = a + SIZE + 8;
    memset(blocks[5], 'x', SIZE);
#elif defined TWO
    do_free(blocks[4]);
#endif

#if defined NUL || defined NUL_SIZE
    a[SIZE] = 0;
    expect_overrun(b, a, SIZE, NULL);
#elif defined ONE
    a[SIZE] = 'A';
    expect_overrun(b, a, SIZE, NULL);
#elif defined TEXT
    memcpy((char *)a + SIZE - 5, "Freiherr von Hohenstein zu B.", 29);
    expect_overrun(b, a, SIZE, "overwriter=ascii");
#elif defined FORCE
    memset((char *)a + SIZE, 0xff, 8);
    expect_overrun(b, a, SIZE, NULL);
#elif defined TWO
    a[SIZE] = 0x61;
#ifdef FREED
    do_free((void *)b);
#endif
    expect_overrun(b, a, SIZE, NULL);
#endif
}
