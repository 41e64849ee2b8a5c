/* What all fixture programs share. A program prints the truth about itself on standard output, one fact a line
 * (`KEYWORD key=value ...`), with plain write(2): stdio would allocate and disturb the heap that is to be shown.
 *
 * malloc and free are called through volatile pointers, or the compiler would remove pairs of them. */
#ifndef COMMON_H
#define COMMON_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

typedef void *(*malloc_function)(size_t);
typedef void (*free_function)(void *);
static malloc_function volatile do_malloc UNUSED = malloc;
static free_function volatile do_free UNUSED = free;

struct line {
    char text[400];
    size_t length;
};

static UNUSED void put_text(struct line *line, const char *text)
{
    while (*text && line->length < sizeof line->text - 1)
        line->text[line->length++] = *text++;
}

static UNUSED void put_number(struct line *line, uint64_t value, unsigned base)
{
    char digits[24];
    int at = sizeof digits - 1;
    digits[at] = 0;
    do
        digits[--at] = "0123456789abcdef"[value % base];
    while ((value /= base) != 0);
    if (base == 16)
        put_text(line, "0x");
    put_text(line, digits + at);
}

/* ` key=0x12ab` */
static UNUSED void put_address(struct line *line, const char *key, const volatile void *address)
{
    put_text(line, " ");
    put_text(line, key);
    put_text(line, "=");
    put_number(line, (uintptr_t)address, 16);
}

/* ` key=12` */
static UNUSED void put_count(struct line *line, const char *key, uint64_t count)
{
    put_text(line, " ");
    put_text(line, key);
    put_text(line, "=");
    put_number(line, count, 10);
}

static UNUSED void put_end(struct line *line)
{
    line->text[line->length++] = '\n';
    if (write(1, line->text, line->length) != (ssize_t)line->length)
        _exit(97);
    line->length = 0;
}

static UNUSED void say(const char *text)
{
    struct line line = {{0}, 0};
    put_text(&line, text);
    put_end(&line);
}

/* EXPECT kind=.. address=.. block=.. size=.. and whatever `more` holds, culprit included if it is not null. */
static UNUSED void expect(const char *kind, const volatile void *address, const volatile void *block, size_t size,
                          const volatile void *culprit, const char *more)
{
    struct line line = {{0}, 0};
    put_text(&line, "EXPECT kind=");
    put_text(&line, kind);
    put_address(&line, "address", address);
    if (block) {
        put_address(&line, "block", block);
        put_count(&line, "size", size);
    }
    if (culprit) {
        put_address(&line, "culprit", culprit);
        put_count(&line, "culprit_size", size);
    }
    if (more) {
        put_text(&line, " ");
        put_text(&line, more);
    }
    put_end(&line);
}

/* A setup that did not come out as the program needs it: no truth may come of it. */
static UNUSED void give_up(const char *why)
{
    struct line line = {{0}, 0};
    put_text(&line, "GIVE-UP ");
    put_text(&line, why);
    put_end(&line);
    _exit(96);
}

static UNUSED void need(int condition, const char *what)
{
    if (!condition)
        give_up(what);
}

/* Random numbers that are the same in each run. */
static UNUSED uint32_t next(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* CLASS size=.. in_use=.. [free=..]; `nfree` -1: not known. For classes that nothing uses at start-up only. */
static UNUSED void say_class(size_t size, uint64_t in_use, long nfree)
{
    struct line line = {{0}, 0};
    put_text(&line, "CLASS");
    put_count(&line, "size", size);
    put_count(&line, "in_use", in_use);
    if (nfree >= 0)
        put_count(&line, "free", (uint64_t)nfree);
    put_end(&line);
}

/* The death that every program states before it dies, so that the script can check it. With GCORE it waits instead,
 * until a debugger has written the core. */
static UNUSED __attribute__((noreturn)) void die_by_abort(void)
{
#ifdef GCORE
    say("WAITS");
    for (;;)
        pause();
#endif
    say("DIES signal=SIGABRT");
    abort();
}

#endif
