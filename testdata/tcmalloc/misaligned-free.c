/* free((char *)p + INSIDE): a pointer to the inside of a block of SIZE bytes is freed (8 and 2; misaligned-free-48: 48
 * and 16, where the freed pointer looks well aligned).
 *
 * What remains: the head of the thread cache's list of the class is p + INSIDE, its link is intact and leads to the
 * block freed before. With 8 and 2 the link covers the last 6 bytes of p and the first 2 of the block behind it, whose
 * owner sees that its contents changed, and aborts. */
#include "common.h"

#ifndef SIZE
#define SIZE 8
#define INSIDE 2
#endif

enum { BLOCKS = 64 };

int main(void)
{
    static const char mark[8] = {'o', 'r', 'd', 'e', 'r', '0', '0', '1'};
    char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = (char *)do_malloc(SIZE);
        memcpy(blocks[i], mark, sizeof mark);
    }
    char *p = NULL, *behind = NULL;
    for (int i = 1; i + 1 < BLOCKS && !behind; i++)
        if (blocks[i + 1] == blocks[i] + SIZE) {
            p = blocks[i];
            behind = blocks[i + 1];
        }
    need(p != NULL, "no two neighbours");
    do_free(blocks[0]);
    do_free(p + INSIDE);
    expect("misaligned-free-entry", p + INSIDE, p, SIZE, NULL, NULL);
    if (SIZE == 8)
        need(memcmp(behind, mark, sizeof mark) != 0, "the block behind is untouched");
    die_by_abort();
}
