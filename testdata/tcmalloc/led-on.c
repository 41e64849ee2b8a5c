/* A block is freed, the only one of its size in the cache, and the program links a live one to it: its first word is the address of a
 * block in use. The cache counts one block, and its list leads on. */
#include "common.h"

enum { SIZE = 2560, BLOCKS = 64 };

int main(void)
{
    static char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = (char *)do_malloc(SIZE);
        memset(blocks[i], 0, SIZE);
    }
    /* Its first word is null once more, as that of the last one of a list. */
    char *live = blocks[7];
    char *freed = blocks[9];
    do_free(freed);
    for (int i = 0; i < 200 && *(char *volatile *)freed; i++) {
        /* It comes back first, and then one of those behind it. */
        need(do_malloc(SIZE) == freed && do_malloc(SIZE) != NULL, "malloc took another block");
        do_free(freed);
    }
    need(*(char **)freed == NULL, "it is not alone in its cache");
    *(char *volatile *)freed = live;
    expect("use-after-free-write", freed, freed, SIZE, NULL, "");
    die_by_abort();
}
