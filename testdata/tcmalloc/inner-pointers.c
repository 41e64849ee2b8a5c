/* Pointers that all lie as far into their blocks are freed, and tcmalloc takes them.
 *   FILLED    128 bytes into blocks of 640: one is handed out and filled, past the end of its block and over the next one's link. Others
 *             still hold their links there
 *   SMALLER   8 bytes into blocks of 64, deleted as objects of 8 bytes, as by a base that has no virtual destructor: the list of that size
 *             leads from one to the next
 * and healthy:
 *   PROPER    the same blocks freed as they were made, one filled */
#include "common.h"

void tc_delete_sized(void *p, size_t size);
static void (*volatile delete_sized)(void *, size_t) UNUSED = tc_delete_sized;

enum { COUNT = 6, DISTANCE = 128, SIZE = 640 };

int main(void)
{
    static char *blocks[COUNT];
#if defined SMALLER
    for (int i = 0; i < COUNT; i++)
        blocks[i] = (char *)do_malloc(64);
    for (int i = 0; i < COUNT; i++)
        delete_sized(blocks[i] + 8, 8);
    need(*(char **)(blocks[COUNT - 1] + 8) == blocks[COUNT - 2] + 8, "the last two are not in one list");
    expect("misaligned-free-entry", blocks[0] + 8, blocks[0], 64, NULL, NULL);
#else
    for (int i = 0; i < COUNT; i++) {
        blocks[i] = (char *)do_malloc(SIZE);
        memset(blocks[i], 0, SIZE);
    }
#ifdef FILLED
    char *behind = blocks[COUNT - 1] + SIZE;
    for (int i = 0; i < COUNT; i++)
        do_free(blocks[i] + DISTANCE);
    char *last = (char *)do_malloc(SIZE);
    need(last == blocks[COUNT - 1] + DISTANCE, "another one was handed out");
    need(*(char **)behind == behind + SIZE, "what lies behind is not in order");
    memset(last, 6, SIZE - 40);
    expect("misaligned-free-entry", blocks[0] + DISTANCE, blocks[0], SIZE, NULL, NULL);
#else
    for (int i = 0; i < COUNT; i++)
        do_free(blocks[i]);
    memset(do_malloc(SIZE), 6, SIZE - 40);
    say("HEALTHY");
#endif
#endif
    die_by_abort();
}
