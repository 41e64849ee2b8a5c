/* Damage of which the nearest story is the wrong one, each with what it really was.
 *   FOLLOWED   a number in a freed object is counted down; malloc hands the object out, and its link is the head of the list
 *   TOLD       the same with text, and the object's first word is left as it was
 *   OLD_TOP    a byte past the end of a block that was the last one of the heap; others have been cut off since
 *   ZEROS      a block is cleared, and the rest of the heap behind it: a page of nothing but zeros, which somebody wrote
 *   CLEARED    the same with blocks behind it
 *   PATTERN    one value from 24 bytes in front of a block on through most of it; what lies in front is empty
 *   SEVERAL    one value from the start of a block on over the next three
 *   SETTINGS   one bit of malloc's settings
 *   THROUGH    a block is filled past its end, over the header and the link of a free one, which is handed out again
 * and healthy:
 *   EMPTY      blocks that are full of zeros, over several pages
 *   FILLED     as THROUGH, up to the block's end */
#include "ptmalloc.h"

static UNUSED char *blocks[16];

static void scene(void)
{
#if defined FOLLOWED || defined TOLD
    take(blocks, 12, 104);
    for (int i = 0; i < CACHED && i < 12; i++)
        do_free(blocks[i]);
#ifdef FOLLOWED
    for (int i = CACHED; i < 12; i++)
        memset(blocks[i], 1, 104);
    int damaged = CACHED < 12 ? 5 : 10;
    (*(volatile long *)blocks[damaged])--;
    for (;;) {
        volatile long *p = (volatile long *)do_malloc(104);
        p[0] = 1;
        p[1] = 2;
        if ((char *)p == blocks[damaged])
            break;
    }
    /* Its address is the head's: which block it was is known no more. */
    say("EXPECT kind=use-after-free-write or=use-after-free-write");
#else
    int damaged = CACHED < 12 ? 5 : 10;
    memcpy(blocks[damaged], "overlong", 8);
    while ((char *)do_malloc(104) != blocks[damaged])
        ;
    expect_block("use-after-free-write", blocks[damaged], 104, NULL);
#endif
#elif defined OLD_TOP
    take(blocks, 3, 40);
    volatile char *q = blocks[2];
    q[40] = 1;
    char *last = (char *)do_malloc(4096);
    memset(last, 0, 4096);
    expect_entry("heap-overrun", last + 4096 + 16, NULL, NULL);
#elif defined ZEROS || defined CLEARED
    take(blocks, 1, 3000);
    blocks[2] = (char *)do_malloc(1112);
    memset(blocks[2], 'q', 1112);
    volatile char *behind = blocks[2] + 1112 + 8;
#ifdef CLEARED
    take(blocks + 3, 8, 1000);
    for (int i = 3; i < 11; i++)
        memset(blocks[i], 'r', 1000);
    do_malloc(40);
    behind = blocks[3];
#endif
    memset(blocks[2], 0, 8192);
    expect_overrun(behind, blocks[2], 1112, "overwriter=zero");
#elif defined PATTERN
    char *before = (char *)do_malloc(4104);
    memset(before, 0, 4104);
    int *block = (int *)do_malloc(408);
    for (int i = 0; i < 99; i++)
        block[i] = 'A';
    for (int i = -8; i < 91; i++)
        ((volatile int *)block)[i] = 'C';
    do_malloc(40);
    expect_entry("heap-underrun", block, NULL, NULL);
#elif defined SEVERAL
    take(blocks, 10, 104);
    for (int i = 0; i < 10; i++)
        memset(blocks[i], i, 104);
    memset(blocks[3], 0x5c, 3 * 112 + 40);
    expect_overrun(blocks[4], blocks[3], 104, NULL);
#elif defined SETTINGS
    /* `mp_` lies beside `main_arena`, to which the first chunk of a bin points. */
    take_fillers(400);
    char *large = (char *)do_malloc(400);
    do_malloc(40);
    fill_cache();
    do_free(large);
    volatile uint64_t *word = *(volatile uint64_t *volatile *)large;
    word -= 0x1200 / 8;
    volatile uint64_t *end = word + 0x2800 / 8;
    while (word < end && !(word[0] == 64 && word[1] >= 1032 && word[1] <= 1041 && word[2] == CACHED))
        word++;
    need(word < end, "malloc's settings are not where they were looked for");
    word[0] |= (uint64_t)1 << 43;
    expect_entry("corrupt-metadata", (volatile void *)word, NULL, "or=corrupt-metadata");
#elif defined THROUGH || defined FILLED
    take(blocks, 4, 72);
    do_free(blocks[2]);
    do_free(blocks[1]);
#ifdef THROUGH
    memset(blocks[0], '\\', 72 + 16);
#else
    memset(blocks[0], '\\', 72);
#endif
    /* The holder's pointer is all that still leads to the block whose link was followed. */
    char *volatile holder = (char *)do_malloc(72);
    need(holder == blocks[1], "malloc gave another block");
    memset(holder, 7, 24);
#ifdef THROUGH
    expect_overrun(blocks[1], blocks[0], 72, NULL);
#else
    say("HEALTHY");
#endif
#elif defined EMPTY
    for (int i = 0; i < 16; i++) {
        blocks[i] = (char *)do_malloc(1112 + 400 * i);
        memset(blocks[i], 0, 1112 + 400 * i);
    }
    say("HEALTHY");
#endif
}
