/* COUNT blocks of SIZE bytes are filled with 'A'; then the last one is overrun, which damages the link of the block
 * behind it, and the next malloc of that size follows the damaged link (if not EARLY).
 *
 * The slow start fetches 1, 2, 3, ... blocks from the central list, so the block behind the last one is the head of its
 * span's own list when COUNT is a triangular number (1, 3, 6, 10): death is in CentralFreeList::FetchFromOneSpans, and
 * the lock of that class stays held. With other counts that block is in the thread cache (overrun-nul-cache: 4).
 *
 * What remains: every block behind the culprit is as the fresh span was cut (link = own address + SIZE), except the one
 * whose link was damaged. Which bytes, by variant:
 *   overrun-nul        last[48] = 0: the damaged link points into a block full of 'A'
 *   overrun-nul-208    the same with 10 blocks of 208
 *   overrun-nul-cache  4 blocks; the damaged link leads to the start of a live block; aborts at once. (Two malloc
 *                      later it would be gone from the list: then the list's head is 'AAAAAAAA' and no more.)
 *   overrun-one        last[48] = 1: the link gets odd
 *   overrun-text       a text 6 bytes too long for the block: its end and its NUL lie in the link
 *   overrun-text-long  a text 16 bytes too long: the link is nothing but text
 *   overrun-early      as overrun-nul, aborts at once
 *   overrun-zeros      zeros from the last block's start over it and the three behind it; aborts at once */
#include "common.h"

#ifndef SIZE
#define SIZE 48
#endif
#ifndef COUNT
#define COUNT 6
#endif

int main(void)
{
    char *last = NULL;
    for (int i = 0; i < COUNT; i++) {
        char *block = (char *)do_malloc(SIZE);
        need(!last || block == last + SIZE, "the blocks are not neighbours");
        last = block;
        memset(last, 'A', SIZE);
    }
    uint64_t *volatile link = (uint64_t *)(last + SIZE);
    uint64_t before = *link;
    need(before == (uintptr_t)(last + 2 * SIZE), "the block behind has no link to the next one");
    volatile char *past = last;
#if defined TEXT
#ifndef NAME
#define NAME "Herr Doktor Anton Balthasar Maria Freiherr von und zu"
#endif
    static const char name[] = NAME;
    for (size_t i = 0; i < sizeof name; i++)
        past[i] = name[i];
    const char *more = "overwriter=ascii";
#elif defined ZEROS
    memset((void *)past, 0, 4 * SIZE);
    const char *more = "overwriter=zero or=use-after-free-write";
#elif defined ONE
    past[SIZE] = 1;
    const char *more = "overwriter=small-integer";
#else
    past[SIZE] = 0;
    const char *more = "overwriter=zero";
#endif
    need(*link != before, "nothing changed");
    expect("heap-overrun", link, link, SIZE, last, more);
#ifdef EARLY
    die_by_abort();
#endif
    say("DIES signal=SIGSEGV function=FetchFromOneSpans");
    do_malloc(SIZE);
    return 0;
}
