/* A text runs over the link of the free block behind, which stands first in the thread cache. malloc takes that block, stores the
 * text as the head of the list, and the new owner fills the block.
 *
 * What remains: a head that is text, and a block in use that ends in text, right in front of the one that was handed out. */
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
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = (char *)do_malloc(SIZE);
    char *writer = NULL;
    char *behind = NULL;
    for (int i = 0; i < BLOCKS && !behind; i++)
        for (int k = 0; k < BLOCKS; k++)
            if (blocks[k] == blocks[i] + SIZE) {
                writer = blocks[i];
                behind = blocks[k];
            }
    need(behind != NULL, "no two blocks are neighbours");
    for (int i = 0; i < BLOCKS; i++)
        if (blocks[i] != writer && blocks[i] != behind && i % 3)
            do_free(blocks[i]);
    do_free(behind);
    volatile char *past = writer;
    for (int i = 0; i < SIZE + 8; i++)
        past[i] = "GET /index HTTP/1.1 "[i % 20];
    char *taken = (char *)do_malloc(SIZE);
    need(taken == behind, "malloc took another block");
    memset(taken, 7, SIZE);
    expect("heap-overrun", behind, behind, SIZE, writer, "overwriter=ascii");
    die_by_abort();
}
