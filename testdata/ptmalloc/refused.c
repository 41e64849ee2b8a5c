/* A pointer is given back that is no block in use, and glibc refuses it or dies of it: the heap is in order, what tells is the call.
 *
 *   no block:     ALLOCA a variable-length array   WIDE a pointer advanced in text of four bytes a letter   LITERAL a constant
 *                 NUMBER what was never a pointer  TEXT a member that was written over   REALLOC a local array, to realloc
 *   in a block:   COOKIE what new[] gave, freed without its []   BASE an object's second base
 *   freed before: MERGED it has been joined with the one before   HUGE its mapping has gone back
 *   HANDLER       the handler of a signal calls malloc while it works, until that dies of it */
#include "ptmalloc.h"
#include <alloca.h>
#include <sys/time.h>
#include <wchar.h>

/* Up to 2.42 the word in front of a pointer is read before the pointer itself is looked at. */
#define MISALIGNED (GLIBC >= 43 ? "DIES signal=SIGABRT" : "DIES signal=SIGSEGV function=free")

struct object {
    struct object *next;
    char *name;
    long numbers[4];
};

static UNUSED const char literal[64] __attribute__((aligned(16))) = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
static UNUSED void *kept[64];

/* The call is not the last thing that it does: its frame is there. gcc is not to see what it is given. */
static UNUSED __attribute__((noipa)) void release(void *given)
{
    free(given);
    _exit(95);
}

#ifdef HANDLER
static void *volatile last;
static void handler(int signal)
{
    void *before = last;
    (void)signal;
    last = do_malloc(100);
    do_free(before);
    for (int i = 0; i < 20; i++)
        do_free(do_malloc(2000 + i * 16));
}
#endif

static void scene(void)
{
#if defined ALLOCA
    char *area = alloca(200);
    memset(area, 'A', 200);
    area = (char *)(((uintptr_t)area + 31) & ~(uintptr_t)15);
    expect_entry("invalid-free-entry", area, NULL, NULL);
    say("DIES signal=SIGABRT");
    release(area);
#elif defined WIDE
    wchar_t *text = (wchar_t *)do_malloc(400);
    for (int i = 0; i < 100; i++)
        text[i] = i % 2 ? 0 : 5; /* 5 where a size would be: a chunk of another arena */
    expect_entry("misaligned-free-entry", text + 8, text, "needs=code");
    say(GLIBC >= 43 ? "DIES signal=SIGABRT" : "DIES signal=SIGSEGV function=free");
    release(text + 8);
#elif defined LITERAL
    expect_entry("invalid-free-entry", literal + 16, NULL, NULL);
    say("DIES signal=SIGABRT");
    release((void *)(literal + 16));
#elif defined NUMBER
    expect_entry("invalid-free-entry", (void *)42, NULL, "needs=code");
    say(MISALIGNED);
    release((void *)42);
#elif defined TEXT
    struct object *object = (struct object *)do_malloc(sizeof *object);
    strcpy((char *)object, "written over by too long a text");
    expect_entry("invalid-free-entry", object->name, NULL, "needs=code");
    say(MISALIGNED);
    release(object->name);
#elif defined REALLOC
    char area[256] __attribute__((aligned(16)));
    memset(area, 'A', sizeof area);
    expect_entry("invalid-free-entry", area + 64, NULL, NULL);
    say("DIES signal=SIGABRT");
    void *(*volatile do_realloc)(void *, size_t) = realloc;
    kept[0] = do_realloc(area + 64, 1000);
#elif defined COOKIE
    long *array = (long *)do_malloc(168);
    memset(array, 0, 168);
    array[0] = 3;
    expect_entry("misaligned-free-entry", array + 1, array, NULL);
    say("DIES signal=SIGABRT");
    release(array + 1);
#elif defined BASE
    static void (*const table[])(void *) = {release};
    long *object = (long *)do_malloc(168);
    memset(object, 0, 168);
    object[2] = (long)table;
    expect_entry("misaligned-free-entry", object + 2, object, NULL);
    say("DIES signal=SIGABRT");
    release(object + 2);
#elif defined MERGED
    char *first = (char *)do_malloc(2000), *second = (char *)do_malloc(2000);
    kept[0] = do_malloc(2000); /* what they have become is not the end of the heap */
    do_free(second);
    do_free(first);
    expect_entry("double-free", second, NULL, NULL);
    say("DIES signal=SIGABRT");
    release(second);
#elif defined HUGE
    char *huge = (char *)do_malloc(1 << 20);
    do_free(huge);
    expect_entry("double-free", huge, NULL, "needs=code");
    say("DIES signal=SIGSEGV function=free");
    release(huge);
#elif defined HANDLER
    expect_entry("corrupt-metadata", NULL, NULL, "or=corrupt-metadata");
    say("DIES signal=SIGABRT");
    last = do_malloc(100);
    signal(SIGALRM, handler);
    struct itimerval often = {{0, 50}, {0, 50}};
    setitimer(ITIMER_REAL, &often, NULL);
    for (;;) {
        for (int i = 0; i < 64; i++)
            kept[i] = do_malloc(1100 + i * 24);
        for (int i = 0; i < 64; i++)
            do_free(kept[i]);
    }
#endif
    _exit(95); /* it was taken */
}
