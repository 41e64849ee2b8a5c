/* What the programs for glibc's allocator share. GLIBC is the minor version (36 for 2.36) of the libc that the program runs on.
 *
 * A program's story is `scene`, which runs in the main thread, hence in the main arena; with -DTHREADED in a second thread,
 * hence in an arena of its own, while a third one sleeps that has a cache and an arena too.
 *
 * Blocks that are taken one after the other from a fresh heap are neighbours: 16 bytes of header, of which the first eight are
 * also the last eight of the block before it. `usable` is what a block holds. */
#ifndef PTMALLOC_H
#define PTMALLOC_H

#include "common.h"
#include <malloc.h>

/* Blocks that one list of a thread's cache takes; whether small blocks have lists of their own behind it. */
enum { CACHED = GLIBC >= 43 ? 16 : 7, FASTBINS = GLIBC < 43 };

#ifndef OWN_MAIN
static void scene(void);
#endif

static UNUSED volatile size_t *size_word(volatile void *block)
{
    return (volatile size_t *)((volatile char *)block - 8);
}

static UNUSED size_t usable(volatile void *block)
{
    return (*size_word(block) & ~(size_t)7) - 8;
}

/* `count` blocks for `size` bytes each, neighbours from low to high. */
static UNUSED void take(char **blocks, int count, size_t size)
{
    for (int i = 0; i < count; i++) {
        blocks[i] = (char *)do_malloc(size);
        need(i == 0 || blocks[i] == blocks[i - 1] + usable(blocks[i - 1]) + 8, "the blocks are not neighbours");
    }
}

/* As many blocks as the calling thread's cache takes of this size; once they are freed (`fill_cache`), further blocks go elsewhere. */
static UNUSED char *fillers[CACHED];
static UNUSED void take_fillers(size_t size)
{
    for (int i = 0; i < CACHED; i++)
        fillers[i] = (char *)do_malloc(size);
}

static UNUSED void fill_cache(void)
{
    for (int i = 0; i < CACHED; i++)
        do_free(fillers[i]);
}

static UNUSED void put_block(struct line *line, const char *key, const char *size_key, volatile void *block, size_t size)
{
    put_address(line, key, block);
    if (size) {
        put_text(line, " ");
        put_text(line, size_key);
        put_text(line, "=");
        put_number(line, size, 10);
    }
}

static UNUSED void put_more(struct line *line, const char *more)
{
    if (more) {
        put_text(line, " ");
        put_text(line, more);
    }
    put_end(line);
}

/* A finding about a block and what it holds; sizes have to be told before they are damaged. */
static UNUSED void expect_block(const char *kind, volatile void *block, size_t size, const char *more)
{
    struct line line = {{0}, 0};
    put_text(&line, "EXPECT kind=");
    put_text(&line, kind);
    put_address(&line, "address", block);
    put_block(&line, "block", "size", block, size);
    put_more(&line, more);
}

/* `victim` was damaged by a write past the end of `culprit`. */
static UNUSED void expect_overrun(volatile void *victim, volatile void *culprit, size_t culprit_size, const char *more)
{
    struct line line = {{0}, 0};
    put_text(&line, "EXPECT kind=heap-overrun");
    put_address(&line, "address", victim);
    put_block(&line, "culprit", "culprit_size", culprit, culprit_size);
    put_more(&line, more);
}

/* A finding about a freed pointer that was no block; `inside` is the block that it leads into, or null. */
static UNUSED void expect_entry(const char *kind, const volatile void *entry, volatile void *inside, const char *more)
{
    struct line line = {{0}, 0};
    put_text(&line, "EXPECT kind=");
    put_text(&line, kind);
    put_address(&line, "address", entry);
    if (inside)
        put_block(&line, "block", "size", inside, usable(inside));
    put_more(&line, more);
}

/* What glibc is going to say when it aborts; to be followed by the call that makes it. Blanks are written as '_'. */
static UNUSED void dies_saying(const char *message)
{
    struct line line = {{0}, 0};
    put_text(&line, "VERDICT message=");
    put_text(&line, message);
    put_end(&line);
    say("DIES signal=SIGABRT");
}

#ifdef OWN_MAIN
/* glibc's own figures count what its caches hold as in use: nothing to compare with. */
static void say_allocated_bytes(void)
{
}
#else

#ifdef THREADED
static void *sleeper(void *ready)
{
    do_free(do_malloc(100));
    pthread_barrier_wait((pthread_barrier_t *)ready);
    for (;;)
        pause();
    return NULL;
}

static void *thread(void *nothing)
{
    do_free(do_malloc(24)); /* makes the cache: from 2.43 on, the first free does that */
    scene();
    die_by_abort();
    return nothing;
}
#endif

int main(void)
{
    do_free(do_malloc(24));
#ifdef THREADED
    pthread_t id;
    pthread_barrier_t ready;
    pthread_barrier_init(&ready, NULL, 2);
    need(pthread_create(&id, NULL, sleeper, &ready) == 0, "no thread");
    pthread_barrier_wait(&ready);
    need(pthread_create(&id, NULL, thread, NULL) == 0, "no thread");
    pthread_join(id, NULL);
#else
    scene();
#endif
    die_by_abort();
}

#endif

#endif
