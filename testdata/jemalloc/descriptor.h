/* Finds jemalloc's descriptor of an extent as a stray write would find it: by looking through the memory. */
#ifndef DESCRIPTOR_H
#define DESCRIPTOR_H

#include "jemalloc.h"
#include <fcntl.h>

static char maps[1 << 18];

static UNUSED void read_maps(void)
{
    size_t length = 0;
    ssize_t got;
    int file = open("/proc/self/maps", O_RDONLY);
    while ((got = read(file, maps + length, sizeof maps - 1 - length)) > 0)
        length += (size_t)got;
    close(file);
    maps[length] = 0;
    need(length > 0 && length < sizeof maps - 1, "too many mappings");
}

typedef int (*look_at)(uint64_t *word, uint64_t *end, const void *wanted);

/* The one word of readable and writable memory without a file (stacks left out) of which `fits` says so. */
static UNUSED uint64_t *find_word(look_at fits, const void *wanted)
{
    uint64_t *found = NULL;
    read_maps();
    for (char *line = maps; *line; line = strchr(line, '\n') + 1) {
        char *rest;
        uint64_t *from = (uint64_t *)strtoul(line, &rest, 16);
        uint64_t *to = (uint64_t *)strtoul(rest + 1, &rest, 16);
        char *end = strchr(line, '\n');
        if (strncmp(rest, " rw", 3) != 0 || memchr(line, '/', (size_t)(end - line)) || memchr(line, '[', (size_t)(end - line)))
            continue;
        for (uint64_t *word = from; word < to; word++)
            if (fits(word, to, wanted)) {
                need(!found, "more than one word fits");
                found = word;
            }
    }
    need(found != NULL, "no word fits");
    return found;
}

static UNUSED int is_descriptor(uint64_t *word, uint64_t *end, const void *wanted)
{
    const uint64_t *extent = (const uint64_t *)wanted; /* address, size */
    return (uintptr_t)word % 64 == 0 && word + 16 <= end && word[1] == extent[0] && (word[2] & ~(uint64_t)4095) == extent[1];
}

/* The descriptor (extent_t, edata_t) of the extent that starts at `address`. Its words: 0 bits, 1 address, 2 size (the low
 * bits are a serial number), 8 on: the slab's bitmap, in which a free region is 1. */
static UNUSED uint64_t *descriptor_of(const volatile void *address, size_t size)
{
    uint64_t wanted[2] = {(uintptr_t)address, size};
    return find_word(is_descriptor, wanted);
}

static UNUSED int is_word(uint64_t *word, uint64_t *end, const void *wanted)
{
    (void)end;
    return *word == (uintptr_t)wanted;
}

#endif
