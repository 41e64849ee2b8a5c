/* Words of the allocator itself are written over.
 *   COUNT     a count in the thread's cache: 5 for a list of 2
 *   ENTRY     the head of a list of the thread's cache gets text
 *   BIN       a list head of the arena gets text
 *   THREAD    what says which arena the thread uses gets text */
#include "ptmalloc.h"

static UNUSED char *blocks[6];

/* The arena's header of the bin that a block in it leads to: the only one that is not in the heap's order. */
static UNUSED volatile uint64_t *bin_of(char *block)
{
    return *(volatile uint64_t *volatile *)block;
}

static void scene(void)
{
    take(blocks, 6, 88);
    do_free(blocks[1]);
    do_free(blocks[3]);
#if defined COUNT || defined ENTRY
    /* The cache's structure: the word in it that points at the last block freed. */
    volatile char **head = NULL;
    volatile char **at = (volatile char **)((uintptr_t)blocks[0] & ~(uintptr_t)0xfff);
    for (; at < (volatile char **)blocks[0]; at++)
        if (*at == blocks[3])
            head = at;
    need(head != NULL, "no list begins with the block");
#ifdef ENTRY
    memcpy((void *)head, "overlong", 8);
    /* Where links are not protected, a head that somebody wrote looks like a damaged link that malloc followed. */
    expect_entry("corrupt-metadata", head, NULL, GLIBC < 32 ? "or=use-after-free-write" : "or=invalid-free-entry");
#else
    enum { BINS = GLIBC >= 42 ? 76 : 64, INDEX = 4 };
    volatile char *counts = (volatile char *)(head - INDEX) - 2 * BINS;
    volatile uint16_t *count = (volatile uint16_t *)counts + INDEX;
    need(*count == (GLIBC >= 42 ? CACHED - 2 : 2), "that is no count");
    *count = GLIBC >= 42 ? CACHED - 5 : 5;
    expect_entry("count-mismatch", head, NULL, NULL);
#endif
#elif defined BIN
    take_fillers(400);
    char *large = (char *)do_malloc(400);
    do_malloc(40);
    fill_cache();
    do_free(large);
    volatile uint64_t *bin = bin_of(large);
    memcpy((void *)(bin + 2), "overlong", 8);
    expect_entry("corrupt-metadata", bin + 2, NULL, "or=use-after-free-write");
#elif defined THREAD
    /* An arena's memory begins, at 64 MiB, with the arena's address; libc's thread-local words end where the thread's own begin. */
    enum { WORDS = 64 };
    uint64_t arena = *(uint64_t *)((uintptr_t)blocks[0] & ~(((uintptr_t)64 << 20) - 1));
    volatile uint64_t *word = (volatile uint64_t *)pthread_self() - WORDS;
    volatile uint64_t *end = word + WORDS;
    while (word < end && *word != arena)
        word++;
    need(word < end, "no word names the arena");
    memcpy((void *)word, "overlong", 8);
    expect_entry("corrupt-metadata", word, NULL, NULL);
#endif
}
