/* Double frees that glibc lets pass. Each aborts at once, but for AGAIN. By variant:
 *   SELF       free p, clear it, free p: the list of the cache is p -> p, its count 2
 *   CYCLE      free p, q, clear p's key, free p: p -> q -> p, count 3
 *   AGAIN      the same; then malloc three times, which takes p out and leaves it in the list
 *   FASTBIN    the cache is full: p, q, p go to a fast bin: p -> q -> p
 *   BOTH       the cache is full, p goes to a fast bin; malloc makes room, and p goes to the cache, too
 *   BINNED     the same with a block that is too large for fast bins: it is in a bin with links both ways */

#include "ptmalloc.h"

static UNUSED char *blocks[6];

static void scene(void)
{
#if defined SELF || defined CYCLE || defined AGAIN
    take(blocks, 4, 40);
    volatile char *p = blocks[1];
    do_free((void *)p);
#ifndef SELF
    do_free(blocks[2]);
#endif
    *(volatile uint64_t *)(p + 8) = 0;
    do_free((void *)p);
#ifdef AGAIN
    need(do_malloc(40) == p && do_malloc(40) == blocks[2], "the list is not a circle");
    expect_block("cyclic-free-list", p, 40, "or=double-free");
#else
    expect_block("double-free", p, 40, NULL);
#endif
#elif defined FASTBIN
    take_fillers(40);
    take(blocks, 4, 40);
    fill_cache();
    do_free(blocks[1]);
    do_free(blocks[2]);
    do_free(blocks[1]);
    expect_block("double-free", blocks[1], 40, NULL);
#elif defined BOTH
    take_fillers(40);
    take(blocks, 4, 40);
    fill_cache();
    do_free(blocks[0]);
    do_free(blocks[1]);
    do_malloc(40);
    do_free(blocks[1]);
    expect_block("double-free", blocks[1], 40, NULL);
#elif defined BINNED
    take_fillers(280);
    take(blocks, 4, 280);
    fill_cache();
    do_free(blocks[1]);
    do_malloc(280);
    do_free(blocks[1]);
    expect_block("double-free", blocks[1], 280, NULL);
#endif
}
