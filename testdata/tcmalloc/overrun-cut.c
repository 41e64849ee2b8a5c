/* A string's end is written over the lowest byte of a link that leads to the last entry of a thread's list: the link leads into a block
 * then where nobody wrote anything, so that the list seems to end there, with as many entries as it counts. It looks as if an inner
 * pointer had been freed.
 *
 * A block that malloc gives still holds its link, and so does the one behind it: the program takes blocks until the list has two left. */
#include "common.h"

enum { SIZE = 480 };

int main(void)
{
    for (int i = 0; i < 4000; i++) {
        char *block = (char *)do_malloc(SIZE);
        char *next = *(char **)block;
        if (next != block + SIZE)
            continue;
        char *last = *(char **)next;
        if (last != next + SIZE || *(char **)last != NULL)
            continue;
        uintptr_t cut = (uintptr_t)last & ~(uintptr_t)0xff;
        const uint64_t *around = (const uint64_t *)cut;
        if (cut == (uintptr_t)last || cut <= (uintptr_t)next + 8 || around[-1] || around[0] || around[1])
            continue;
        memset(block, 'a', SIZE);
        volatile char *past = block;
        past[SIZE] = 0;
        expect("heap-overrun", next, next, SIZE, block, "overwriter=zero");
        die_by_abort();
    }
    give_up("no list of two");
}
