/* Pointers freed that malloc did not give; glibc puts them into the cache, as what stands before them looks like a size.
 *   INNER     16 bytes into a block, where the program has a number that looks like one
 *   STACK     an array on the stack
 *   GLOBAL    a variable */
#include "ptmalloc.h"

static UNUSED uint64_t global[16] __attribute__((aligned(16)));

static void scene(void)
{
#if defined INNER
    char *blocks[3];
    take(blocks, 3, 72);
    volatile uint64_t *words = (volatile uint64_t *)blocks[1];
    words[1] = 0x31;
    do_free((void *)(words + 2));
    expect_entry("misaligned-free-entry", words + 2, blocks[1], NULL);
#else
    uint64_t local[16] __attribute__((aligned(16)));
#ifdef STACK
    volatile uint64_t *words = local;
#else
    volatile uint64_t *words = global;
    (void)local;
#endif
    words[1] = 0x31;
    words[7] = 0x21;
    do_free((void *)(words + 2));
    expect_entry("invalid-free-entry", words + 2, NULL, NULL);
    die_by_abort(); /* while the array is there */
#endif
}
