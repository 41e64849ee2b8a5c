/* jemalloc's own state is written over, not blocks. The word is found as a stray write would find it, by looking through the memory.
 * `address` is the descriptor of the slab (extent_t, edata_t) but for ENTRY. By variant:
 *   BITMAP     text over the word of a slab's bitmap that says which regions are free: it contradicts the count of free regions
 *   COUNT      the count of free regions in the descriptor's first word is three too high
 *   START      text over the descriptor's address
 *   LENGTH     text over its size
 *   ENTRY      text over a pointer in a thread's cache: the entry found there, which is no pointer at all */
#include "jemalloc/descriptor.h"

enum { SIZE = 64, SLAB = 4096, BLOCKS = 40 };

int main(void)
{
    char *blocks[BLOCKS] UNUSED;
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = (char *)do_malloc(SIZE);
#if defined ENTRY
    /* Out of the cache and back at once: it stands where it stood, and nowhere else. */
    char *p = (char *)do_malloc(SIZE);
    do_free(p);
    uint64_t *entry = find_word(is_word, p);
    memcpy(entry, "surname", 8);
    expect("invalid-free-entry", (void *)*entry, NULL, 0, NULL, "overwriter=ascii or=corrupt-metadata");
#else
    char *slab = (char *)((uintptr_t)blocks[3] & ~(uintptr_t)(SLAB - 1));
    uint64_t *descriptor = descriptor_of(slab, SLAB);
    const char *more = "overwriter=ascii";
#if defined BITMAP
    memcpy(&descriptor[8], "surname", 7);
#elif defined COUNT
    unsigned shift = is_version("5.2") ? 26 : 28;
    need((descriptor[0] >> shift & 1023) == SLAB / SIZE - (uint64_t)__builtin_popcountll(~descriptor[8]), "the count is elsewhere");
    descriptor[0] += (uint64_t)3 << shift;
    more = NULL;
#elif defined START
    memcpy(&descriptor[1], "surname", 7);
#elif defined LENGTH
    memcpy(&descriptor[2], "surname", 7);
#endif
    expect("corrupt-metadata", descriptor, NULL, 0, NULL, more);
#endif
    die_by_abort();
}
