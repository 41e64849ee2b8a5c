/* CLASS lines: blocks of size classes that nothing else uses. */
#ifndef CLASSES_H
#define CLASSES_H

#include "jemalloc/jemalloc.h"

#define LARGEST_SMALL 14336

/* arenas.bin.<bin>.<what> */
static UNUSED size_t bin_number(const char *what, size_t bin)
{
    char name[40] = "arenas.bin.0.";
    size_t mib[4], count = 4, length = sizeof(size_t);
    union {
        size_t wide;
        uint32_t narrow;
    } value = {0};
    strcat(name, what);
    need(mallctlnametomib(name, mib, &count) == 0, name);
    mib[2] = bin;
    if (strcmp(what, "nregs") == 0)
        length = sizeof value.narrow;
    need(mallctlbymib(mib, count, &value, &length, NULL, 0) == 0, name);
    return value.wide;
}

static UNUSED size_t bin_of(size_t size)
{
    size_t bin = 0;
    while (bin_number("size", bin) < size)
        bin++;
    need(bin_number("size", bin) == size, "no such class");
    return bin;
}

/* Whether no block of a small class is handed out yet. */
static UNUSED void need_unused(size_t size)
{
    if (!has_stats())
        return;
    refresh();
    if (size <= LARGEST_SMALL)
        need(arena_number(ALL_ARENAS, "bins.0.curregs", bin_of(size)) == 0, "the class is in use already");
}

/* CLASS for a class of which the program knows that `in_use` blocks are its own. Those of its slabs that are not, are free, wherever
 * they are held. */
static UNUSED void say_bin(size_t size, uint64_t in_use)
{
    struct line line = {{0}, 0};
    put_text(&line, "CLASS");
    put_count(&line, "size", size);
    put_count(&line, "in_use", in_use);
    if (has_stats() && size <= LARGEST_SMALL) {
        size_t bin = bin_of(size);
        refresh();
        put_count(&line, "free", arena_number(ALL_ARENAS, "bins.0.curslabs", bin) * bin_number("nregs", bin) - in_use);
    }
    put_end(&line);
}

#endif
