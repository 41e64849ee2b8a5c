/* Allocator state is overwritten, not blocks. By variant:
 *
 * LENGTH (length-smashed): the recorded length of a thread cache's list of 48-byte blocks is 1000 too high. `address` is
 *   the list, that is, the FreeList in the ThreadCache. Nothing else is wrong.
 *
 * SPAN (span-smashed): four bytes of text lie on the word of a Span that holds refcount, size class and location. The
 *   span is on the central list of its class, and its blocks are in use. `address` is the Span.
 *
 * Both are found as a stray write would find them, by address: ThreadCache::thread_heaps_ is exported in every release,
 * FreeList n lies at 32 * n, its size_ at +24; Spans are looked for in the mapping where the caches are. */
#include "common.h"
#include <fcntl.h>

extern char *thread_heaps __asm__("_ZN8tcmalloc11ThreadCache13thread_heaps_E");

struct free_list {
    void *list;
    uint32_t length, lowater, max_length, overages;
    int32_t size;
    uint32_t pad;
};

struct span {
    uint64_t start, length;
    void *next, *prev, *objects;
    uint16_t refcount;
    uint8_t size_class, flags;
    uint32_t pad;
};

enum { SIZE = 48, CLASS = 4 };

/* The bounds of the mapping that holds an address; of 2.16 and up the metadata follows no other. */
static UNUSED void mapping_of(uintptr_t address, uintptr_t *from, uintptr_t *to)
{
    static char text[65536];
    size_t length = 0;
    ssize_t got;
    int file = open("/proc/self/maps", O_RDONLY);
    while ((got = read(file, text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)got;
    close(file);
    for (char *line = text; *line; line = strchr(line, '\n') + 1) {
        char *end;
        *from = strtoul(line, &end, 16);
        *to = strtoul(end + 1, &end, 16);
        if (*from <= address && address < *to)
            return;
    }
    give_up("no mapping holds the caches");
}

int main(void)
{
    char *blocks[28];
    for (int i = 0; i < 28; i++)
        blocks[i] = (char *)do_malloc(SIZE);
    for (int i = 0; i < 4; i++)
        do_free(blocks[i]);
    struct free_list *list = (struct free_list *)(thread_heaps + 32 * CLASS);
    need(list->list == blocks[3] && list->size == SIZE && list->length == 4, "the list is not where it should be");
#if defined LENGTH
    ((volatile struct free_list *)list)->length += 1000;
    expect("count-mismatch", list, NULL, 0, NULL, NULL);
#elif defined SPAN
    uintptr_t from, to;
    struct span *found = NULL;
    mapping_of((uintptr_t)thread_heaps, &from, &to);
    for (uintptr_t at = from; at + sizeof(struct span) <= to; at += 8) {
        struct span *span = (struct span *)at;
        if (span->start == (uintptr_t)blocks[0] >> 13 && span->length == 1 && span->size_class == CLASS &&
            span->refcount == 28) {
            need(!found, "more than one span looks right");
            found = span;
        }
    }
    need(found != NULL, "no span looks right");
    memcpy((char *)found + 40, "name", 4);
    expect("corrupt-metadata", found, NULL, 0, NULL, "overwriter=ascii");
#endif
    die_by_abort();
}
