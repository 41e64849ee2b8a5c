/* Bytes that only malloc may change, where a setting makes it watch or fill them. Each aborts at once.
 *   PERTURBED   M_PERTURB fills free blocks; one of them, in a bin, is written to, far from its links
 *   CHECKED     MALLOC_CHECK_ puts a mark behind what was asked for; a block is written one byte past that, within itself.
 *               The mark follows from the address, and is an 'a' itself in one run of 256 */
#include "ptmalloc.h"

enum { BLOCKS = 60 };
static char *blocks[BLOCKS];

static void scene(void)
{
#if defined PERTURBED
    enum { SIZE = 280 };
    need(mallopt(M_PERTURB, 0x5a) == 1, "no M_PERTURB");
    take_fillers(SIZE);
    take(blocks, BLOCKS, SIZE);
    fill_cache();
    for (int i = 1; i < BLOCKS; i += 2)
        do_free(blocks[i]);
    memcpy(blocks[31] + 120, "stale", 5);
    expect_block("use-after-free-write", blocks[31], SIZE, NULL);
#elif defined CHECKED
    enum { SIZE = 70 };
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = (char *)memset(do_malloc(SIZE), 'a', SIZE);
    blocks[30][SIZE] = blocks[30][SIZE] == 'a' ? 'b' : 'a';
    expect_block("heap-overrun", blocks[30], usable(blocks[30]), NULL);
#endif
}
