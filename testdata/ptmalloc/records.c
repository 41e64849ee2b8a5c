/* An array of records of 32 bytes is written far past the end of its block, over all that stands behind; or (IN_FRONT) begins two
 * elements in front of its block, over its header. */
#include "ptmalloc.h"

struct record {
    long number;
    void *owner;
    char text[16];
};

static void scene(void)
{
    char *blocks[12];
    take(blocks, 12, 120);
    for (int i = 0; i < 12; i++)
        memset(blocks[i], i + 1, 120);
#ifdef IN_FRONT
    volatile long *p = (volatile long *)blocks[4];
    for (int i = -2; i < 15; i++)
        p[i] = 0x7000 + 5 * i;
    expect_entry("heap-underrun", p, NULL, "");
#else
    volatile struct record *r = (volatile struct record *)blocks[4];
    for (int i = 0; i < 20; i++) {
        r[i].number = i;
        r[i].owner = blocks;
        for (int k = 0; k < 16; k++)
            r[i].text[k] = "a record of them"[k];
    }
    expect_overrun(blocks[5], blocks[4], usable(blocks[4]), "");
#endif
}
