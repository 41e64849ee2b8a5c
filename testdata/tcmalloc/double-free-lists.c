/* Double frees with other frees between the two. 48-byte blocks, one thread; aborts at once. By variant:
 *
 * CYCLE (double-free-cycle): free g0, g1, g2, g0. The thread cache's list is g0 -> g2 -> g1 -> g0, recorded length 4.
 *   With TAKEN (cyclic-list): malloc then takes g0 and g2 off again. The circle goes on, from g1, and the list counts 2
 *   where it holds 3: which of the three was freed twice can't be told any more.
 *
 * CROSSING: two blocks taken, so that a third one is left in the cache and max_length_ is 3; free p, q, p. The fourth
 *   entry flushes the list, four steps along the circle: p and q go back to their span, and the cache is left with p as
 *   its head, length 0. Chains: cache p -> rest of the span; span q -> p -> rest. p is where they meet. The third block
 *   is in no list, but by the span's count it is out: nothing tells it from a block in use.
 *
 * CENTRAL: p is freed first of a series that is flushed, and last of a second series that is flushed. The flush puts the
 *   newest on its span first, so the second one finds p at the head of the span's list and links it to itself; the rest of
 *   the second series goes before it. Span: 9 blocks -> p -> p, a circle in the central list only. All free blocks of the
 *   span that were behind p are lost; refcount is one too low. The cache's list is empty.
 *
 * CACHE_AND_CENTRAL: p is freed and flushed to its span, then freed again, which puts it into the thread cache. Its link
 *   now leads to the cache's next block: span .. -> p -> the cache's blocks; what was behind p in the span is lost. */
#include "common.h"

enum { SIZE = 48, BLOCKS = 28 };

static char *blocks[BLOCKS];

static void take(int count)
{
    for (int i = 0; i < count; i++) {
        blocks[i] = (char *)do_malloc(SIZE);
        need(i == 0 || blocks[i] == blocks[i - 1] + SIZE, "the blocks are not neighbours");
    }
}

static UNUSED void give(int from, int count)
{
    for (int i = from; i < from + count; i++)
        do_free(blocks[i]);
}

static char *link_of(char *block)
{
    return *(char *volatile *)block;
}

int main(void)
{
#if defined CYCLE
    take(6);
    char *p = blocks[0];
    give(0, 3);
    do_free(p);
    need(link_of(p) == blocks[2], "no circle");
#ifdef TAKEN
    need(do_malloc(SIZE) == p && do_malloc(SIZE) == blocks[2], "malloc did not take from the circle");
    expect("cyclic-free-list", blocks[1], blocks[1], SIZE, NULL, NULL);
#else
    expect("double-free", p, p, SIZE, NULL, NULL);
#endif
#elif defined CROSSING
    take(2);
    char *p = blocks[0], *q = blocks[1];
    do_free(p);
    do_free(q);
    do_free(p);
    need(link_of(q) == p && link_of(p) != q, "the list was not flushed");
    expect("double-free", p, p, SIZE, NULL, NULL);
#elif defined CENTRAL
    take(28); /* seven fetches: max_length_ is 8 */
    char *p = blocks[0];
    give(0, 9); /* the ninth flushes */
    need(link_of(p) != NULL, "the first series was not flushed");
    give(9, 9);
    do_free(p); /* the tenth, as max_length_ has grown by one, flushes again */
    need(link_of(p) == p, "p does not lead to itself");
    expect("double-free", p, p, SIZE, NULL, NULL);
#elif defined CACHE_AND_CENTRAL
    take(28);
    char *p = blocks[4];
    give(0, 9);
    uint64_t lost = 0;
    for (char *block = link_of(p); block; block = link_of(block))
        lost++;
    need(lost > 100, "the span's own list is not behind p");
    give(9, 3);
    do_free(p);
    need(link_of(p) == blocks[11], "p is not in the cache");
    struct line line = {{0}, 0};
    put_text(&line, "lost=");
    put_number(&line, lost, 10);
    expect("double-free", p, p, SIZE, NULL, line.text);
#endif
    die_by_abort();
}
