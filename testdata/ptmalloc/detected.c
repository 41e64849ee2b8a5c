/* Errors that glibc notices itself: it prints why and aborts. What remains of some is the message alone, as the call was
 * refused and the heap is in order; others it notices late, when it meets the damage.
 *
 *   refused:  TCACHE2 FASTTOP PREV TOP_FREED UNALIGNED SMALL_SIZE MUNMAP REALLOC
 *   met:      NEXT_SIZE NEXT_SIZE_FAST CONSOLIDATE DOUBLE_LINKED UNSORTED SMALLBIN TCACHE_LINK TOP */
#include "ptmalloc.h"

static UNUSED char *blocks[8];
static char variable[128] __attribute__((aligned(16)));

static void scene(void)
{
    (void)variable;
#if defined TCACHE2
    take(blocks, 4, 40);
    do_free(blocks[1]);
    do_free(blocks[2]);
    /* Where nothing has a name, the call is not known, and 2.43 keeps the pointer in no register. */
#if defined STATIC && GLIBC >= 43
    expect_block("double-free", blocks[1], 40, "or=double-free");
#else
    expect_block("double-free", blocks[1], 40, NULL);
#endif
    dies_saying("free():_double_free_detected_in_tcache_2");
    do_free(blocks[1]);
#elif defined FASTTOP
    take_fillers(40);
    take(blocks, 4, 40);
    fill_cache();
    do_free(blocks[1]);
    expect_block("double-free", blocks[1], 40, NULL);
    dies_saying("double_free_or_corruption_(fasttop)");
    do_free(blocks[1]);
#elif defined PREV
    take_fillers(280);
    take(blocks, 4, 280);
    fill_cache();
    do_free(blocks[1]);
    expect_block("double-free", blocks[1], 280, NULL);
#ifdef THREADED
    /* The first free has taken away the mark of the arena: the second one looks at the main arena's end. */
    dies_saying("double_free_or_corruption_(out)");
#else
    dies_saying("double_free_or_corruption_(!prev)");
#endif
    do_free(blocks[1]);
#elif defined TOP_FREED
    take(blocks, 2, 2000);
    do_free(blocks[1]);
    expect_entry("double-free", blocks[1], NULL, NULL);
    dies_saying("double_free_or_corruption_(top)");
    do_free(blocks[1]);
#elif defined UNALIGNED
    take(blocks, 4, 72);
    expect_entry("misaligned-free-entry", blocks[1] + 8, blocks[1], NULL);
    dies_saying("free():_invalid_pointer");
    do_free(blocks[1] + 8);
#elif defined SMALL_SIZE
    take(blocks, 4, 72);
    memset(blocks[1], 0x11, 72);
    *size_word(blocks[1] + 32) = 0x11;
    expect_entry("misaligned-free-entry", blocks[1] + 32, blocks[1], NULL);
    dies_saying("free():_invalid_size");
    do_free(blocks[1] + 32);
#elif defined MUNMAP
    *(volatile uint64_t *)(variable + 8) = 0x1002;
    expect_entry("invalid-free-entry", variable + 16, NULL, NULL);
    dies_saying("munmap_chunk():_invalid_pointer");
    do_free(variable + 16);
#elif defined REALLOC
    take(blocks, 4, 72);
    expect_entry("misaligned-free-entry", blocks[2] + 8, blocks[2], NULL);
    dies_saying("realloc():_invalid_pointer");
    void *(*volatile do_realloc)(void *, size_t) = realloc;
    do_realloc(blocks[2] + 8, 100);
#elif defined NEXT_SIZE || defined NEXT_SIZE_FAST
#ifdef NEXT_SIZE
    enum { SIZE = 280 };
#else
    enum { SIZE = 40 };
#endif
    take_fillers(SIZE);
    take(blocks, 4, SIZE);
    fill_cache();
    memset(blocks[1], 'x', SIZE);
    memcpy(blocks[1] + SIZE, "overlong", 8);
    expect_overrun(blocks[2], blocks[1], SIZE, "overwriter=ascii");
    dies_saying(SIZE == 40 ? "free():_invalid_next_size_(fast)" : "free():_invalid_next_size_(normal)");
    do_free(blocks[1]);
#elif defined CONSOLIDATE
    enum { SIZE = 0xf8 };
    take_fillers(SIZE);
    take(blocks, 4, SIZE);
    fill_cache();
    memset(blocks[1], 'x', SIZE - 8);
    *(volatile uint64_t *)(blocks[1] + SIZE - 8) = 0x20;
    blocks[1][SIZE] = 0;
    expect_overrun(blocks[2], blocks[1], SIZE, NULL);
    dies_saying("corrupted_size_vs._prev_size_while_consolidating");
    do_free(blocks[2]);
#elif defined DOUBLE_LINKED
    take_fillers(280);
    take(blocks, 6, 280);
    fill_cache();
    do_free(blocks[1]);
    do_free(blocks[3]);
    *(char *volatile *)blocks[3] = variable;
    expect_block("use-after-free-write", blocks[3], 280, NULL);
    dies_saying("corrupted_double-linked_list");
    do_free(blocks[4]);
#elif defined UNSORTED
    for (int i = 0; i < 6; i++)
        blocks[i] = (char *)do_malloc(i % 2 ? 40 : 2000);
    do_free(blocks[0]);
    do_free(blocks[2]);
    *(char *volatile *)(blocks[0] + 8) = variable;
    expect_block("use-after-free-write", blocks[0], usable(blocks[0]), NULL);
    dies_saying("malloc():_unsorted_double_linked_list_corrupted");
    do_malloc(2100);
#elif defined SMALLBIN
    take_fillers(280);
    take(blocks, 6, 280);
    fill_cache();
    do_free(blocks[1]);
    do_free(blocks[3]);
    do_malloc(2100); /* sorts them, where that has not been done yet */
    for (int i = 0; i < CACHED; i++)
        do_malloc(280);
    *(char *volatile *)(blocks[1] + 8) = variable;
    expect_block("use-after-free-write", blocks[1], 280, NULL);
    dies_saying("malloc():_smallbin_double_linked_list_corrupted");
    do_malloc(280);
#elif defined TCACHE_LINK
    take(blocks, 5, 72);
    do_free(blocks[0]);
    do_free(blocks[1]);
    do_free(blocks[2]);
    /* Of links that are encoded, one that decodes to no multiple of 16. */
    memcpy(blocks[1], ((uintptr_t)blocks[1] >> 12) % 16 == 'o' % 16 ? "additive" : "overlong", 8);
    do_malloc(72);
    expect_block("use-after-free-write", blocks[1], 72, "or=invalid-free-entry");
    if (GLIBC >= 32)
        dies_saying("malloc():_unaligned_tcache_chunk_detected");
    else
        say("DIES signal=SIGSEGV function=malloc");
    do_malloc(72);
    do_malloc(72);
#elif defined TOP
    take(blocks, 5, 72);
    memset(blocks[4] + 72, 0xff, 8);
    expect_overrun(blocks[4] + 80, blocks[4], 72, NULL);
    dies_saying("malloc():_corrupted_top_size");
    do_malloc(100000);
#endif
    _exit(95); /* it was not noticed */
}
