/* A large block is freed again after its pages were joined with those of the block before it (JOINED), or while it is in the set
 * of the longest free spans. 2.8.1 and 2.10 do not notice, 2.16 and 2.18.1 abort.
 *
 * What remains: JOINED, a list of free spans that holds a Span object which the page map knows no more, but at the stale entries
 * of its former pages; else a sum of free bytes that is too high by that block's. */
#include "common.h"

enum { BLOCKS = 8, OTHER = 3 };

int main(void)
{
    char *blocks[BLOCKS];
#ifdef JOINED
    const size_t bytes = 303104;
#else
    const size_t bytes = 2031616;
#endif
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = (char *)do_malloc(i == OTHER ? bytes : bytes + 8192 * (i + 1));
    need(blocks[OTHER - 1] + bytes + 8192 * OTHER == blocks[OTHER], "the blocks are not neighbours");
    do_free(blocks[OTHER]);
#ifdef JOINED
    do_free(blocks[OTHER - 1]);
    expect("double-free", blocks[OTHER], NULL, 0, NULL, NULL);
#else
    do_free(blocks[OTHER + 2]);
    expect("double-free", blocks[OTHER], blocks[OTHER], bytes, NULL, NULL);
#endif
    do_free(blocks[OTHER]);
    die_by_abort();
}
