/* A pointer is given back that tcmalloc refuses: the heap is in order, what tells is the call and what tcmalloc says, which stands
 * on the stack. From 2.16 on (TRAPS) it ends the process by an instruction that is none.
 *
 *   STACK   a local array           ARGUMENT  one of the program's arguments     NUMBER  what was never a pointer
 *   REALLOC a static array          TWICE     a large block that is free         INNER   a page inside a large block
 *   FOREIGN a block of glibc's own malloc, which is there all the same
 * TWICE and INNER are noticed from 2.16 on. */
#include "common.h"
#include <dlfcn.h>

#ifdef TRAPS
#define DIES "DIES signal=SIGILL"
#else
#define DIES "DIES signal=SIGABRT"
#endif

static UNUSED char variable[256] __attribute__((aligned(64)));
static UNUSED void *volatile kept;

static UNUSED __attribute__((noipa)) void release(void *given)
{
    free(given);
    _exit(95);
}

int main(int count, char **arguments)
{
    (void)count, (void)arguments;
    kept = do_malloc(100);
#if defined STACK
    long area[100];
    for (int i = 0; i < 100; i++)
        area[i] = 5;
    expect("invalid-free-entry", area, NULL, 0, NULL, NULL);
    say(DIES);
    release(area);
#elif defined ARGUMENT
    expect("invalid-free-entry", arguments[count - 1], NULL, 0, NULL, NULL);
    say(DIES);
    release(arguments[count - 1]);
#elif defined NUMBER
    expect("invalid-free-entry", (void *)42, NULL, 0, NULL, NULL);
    say(DIES);
    release((void *)42);
#elif defined REALLOC
    void *(*volatile do_realloc)(void *, size_t) = realloc;
    expect("invalid-free-entry", variable + 64, NULL, 0, NULL, NULL);
    say(DIES);
    kept = do_realloc(variable + 64, 1000);
#elif defined FOREIGN
    void *libc = dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
    need(libc != NULL, "libc is not loaded");
    void *(*make)(size_t) = (void *(*)(size_t))dlsym(libc, "malloc");
    char *foreign = (char *)make(100);
    kept = make(100); /* so that it is not beside what was never handed out */
    memset(foreign, 'f', 100);
    expect("allocator-mismatch", foreign, foreign, 104, NULL, NULL);
    say(DIES);
    release(foreign);
#elif defined TWICE
    char *large = (char *)do_malloc(300000);
    kept = do_malloc(300000); /* so that it merges with nothing behind it */
    do_free(large);
    expect("double-free", large, NULL, 0, NULL, NULL);
    say(DIES);
    release(large);
#elif defined INNER
    char *large = (char *)do_malloc(300000);
    kept = do_malloc(300000);
    expect("misaligned-free-entry", large + 8192 + 16, NULL, 0, NULL, NULL);
    say(DIES);
    release(large + 8192 + 16);
#endif
    _exit(95); /* it was taken */
}
