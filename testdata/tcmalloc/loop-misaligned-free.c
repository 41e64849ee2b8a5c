/* Objects behind a header of 32 bytes are freed by what follows the header, ten of them: as by delete through a second base
 * without a virtual destructor.
 *
 * What remains: ten entries of the thread cache's list, each 32 bytes into a block of its own class, that lead to each other. */
#include "common.h"

enum { SIZE = 96, BLOCKS = 200, FREED = 10, HEADER = 32 };

int main(void)
{
    static char *blocks[BLOCKS];
    for (int round = 0; round < 30; round++) { /* until the cache keeps them all */
        for (int i = 0; i < BLOCKS; i++)
            blocks[i] = (char *)do_malloc(SIZE);
        if (round < 29)
            for (int i = 0; i < BLOCKS; i++)
                do_free(blocks[i]);
    }
    for (int i = 0; i < FREED; i++)
        do_free(blocks[i] + HEADER);
    expect("misaligned-free-entry", blocks[FREED - 1] + HEADER, blocks[FREED - 1], SIZE, NULL, NULL);
    die_by_abort();
}
