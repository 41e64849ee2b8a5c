/* Memory that jemalloc fills (junk:true: 0x5a when freed, 0xa5 when handed out and not asked for) has been written since.
 * By variant:
 *   FREED      16 bytes in the middle of a block that the thread has cached
 *   SLAB       the same of one that has gone back to its slab
 *   OVERRUN    text past the end of a block in use, over the start of the free block behind it
 *   TAIL       with a sample of every allocation (prof), text past what was asked for, within the block: only of sampled blocks
 *              does jemalloc keep the size asked for
 *   REDZONE    the same in a build with safety checks, which guards sampled blocks with 0xbc behind their end
 * FULL: the program writes each block to its last byte, so that none in use shows what new ones are filled with.
 * Nothing else is wrong, and jemalloc itself has not looked at it again. */
#include "jemalloc/jemalloc.h"

enum { SIZE = 64, BLOCKS = 40 };

int main(void)
{
    char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = (char *)do_malloc(SIZE);
    for (int i = 0; i < BLOCKS; i++)
        memset(blocks[i], 1, SIZE);
#ifndef FULL
    /* As in any program, some are not written to their last byte: where nothing tells the options, these do. */
    for (int i = 0; i < 8; i++)
        memset(do_malloc(SIZE), 'n', 50);
#endif
    /* Enough filled blocks that the filling is no chance. */
    for (int i = 20; i < BLOCKS; i++)
        do_free(blocks[i]);
#if defined FREED || defined SLAB
    char *p = blocks[7];
    static uint64_t target;
    void *volatile pointers[2] = {&target, &target};
    do_free(p);
#ifdef SLAB
    flush();
#endif
    memcpy(p + 16, (void *)pointers, sizeof pointers);
    expect("use-after-free-write", p, p, SIZE, NULL, "overwriter=pointer");
#elif defined OVERRUN
    char *culprit = NULL, *p = NULL;
    for (int i = 0; i < 20 && !culprit; i++)
        for (int j = 0; j < 20; j++)
            if (blocks[j] == blocks[i] + SIZE) {
                culprit = blocks[i];
                p = blocks[j];
            }
    need(culprit != NULL, "no two blocks are neighbours");
    do_free(p);
    memcpy(culprit, "a name that is much longer than the programmer thought, by sixteen bytes and more", 80);
    expect("heap-overrun", p, p, SIZE, culprit, "overwriter=ascii or=use-after-free-write");
#else
    char *volatile p = (char *)do_malloc(100);
    memset(p, 1, 100);
#if defined TAIL
    memcpy(p + 100, "longer", 6);
#else
    memcpy(p + 112, "longer", 6);
#endif
    expect("heap-overrun", p, p, 112, p, "overwriter=ascii");
#endif
    die_by_abort();
}
