// What the programs of this folder share that die in one way a run: what they say before, and how they begin.
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

#define ALONE __attribute__((noinline, noclone))
static volatile long sink;
static void *volatile keep[256];
static int kept;

static void said(const char *format, ...)
{
    char line[200];
    va_list all;
    va_start(all, format);
    int length = vsnprintf(line, sizeof line, format, all);
    va_end(all);
    if (write(1, line, length) != length)
        _exit(97);
}
static void truth(const char *name, const void *block, const void *word = nullptr)
{
    said("CLASS %s\n", name);
    if (block)
        said("BLOCK %p\n", block);
    if (word)
        said("WORD %p\n", word);
}
static void hold(void *block) { keep[kept++ & 255] = block; }
// Blocks that were used and freed, so that what is handed out next is not fresh.
static void stir(size_t size, int count, int fill)
{
    void *blocks[64];
    for (int i = 0; i < count; i++)
        memset(blocks[i] = malloc(size), fill, size);
    for (int i = 0; i < count; i++)
        free(blocks[i]);
}

// Two blocks, the second right behind the first.
static void pair(size_t size, void **first, void **second)
{
    void *all[96];
    int count = 0;
    *first = nullptr;
    for (; count < 96 && !*first; count++) {
        all[count] = malloc(size);
        for (int i = 0; i < count && !*first; i++)
            for (int j = 0; j <= count; j++) {
                intptr_t distance = (char *)all[j] - (char *)all[i];
                if (distance >= (intptr_t)size && distance < (intptr_t)size + 24) {
                    *first = all[i];
                    *second = all[j];
                }
            }
    }
    if (!*first)
        _exit(96);
}
// An overrun that nobody meets, over the link of a free block, in blocks of a size of their own.
static void beside()
{
    void *one, *two;
    pair(760, &one, &two);
    hold(one);
    free(two);
    memset(one, 'z', 760 + 24);
}

struct Case {
    const char *name;
    void (*run)();
};
#define CASE(it) {#it, it}
static int run_case(const Case *cases, unsigned many, int count, char **arguments)
{
    unsigned number = count > 1 ? atoi(arguments[1]) : ~0u;
    if (number >= many)
        return 94;
    for (int i = 0; i < 10; i++)
        hold(malloc(24 + i * 40));
    if (count > 2)
        beside();
    said("NAME %s\n", cases[number].name);
    cases[number].run();
    return 95;
}
