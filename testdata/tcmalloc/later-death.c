/* A variable is given to a sized delete, which asks nobody what it is; tcmalloc dies of it when so many objects of that size are free that
 * the thread's cache gives some back: the page of the variable has no span. The call under way has nothing to do with it.
 *   VARIABLE   as said
 *   ZEROS      (another story) memory is cleared past a block, over the links of all blocks behind it */
#include "common.h"

void tc_delete_sized(void *p, size_t size);
static void (*volatile delete_sized)(void *, size_t) UNUSED = tc_delete_sized;

enum { SIZE = 48, COUNT = 400, LARGE = 704 };
static UNUSED uintptr_t variable[SIZE / 8] __attribute__((aligned(64)));

int main(void)
{
#if defined VARIABLE
    static char *blocks[COUNT];
    for (int i = 0; i < COUNT; i++)
        blocks[i] = (char *)do_malloc(SIZE);
    delete_sized(variable, SIZE);
    expect("invalid-free-entry", variable, NULL, 0, NULL, "needs=code");
    say("DIES signal=SIGSEGV");
    for (int i = 0; i < COUNT; i++)
        do_free(blocks[i]);
    _exit(95); /* it went well */
#else
    memset(do_malloc(5000), 'p', 5000); /* the page in front is full */
    char *block = (char *)do_malloc(LARGE);
    char *next = block + LARGE;
    need(*(char **)next == next + LARGE, "the blocks behind are not in order");
    memset(block, 'q', LARGE);
    memset(block, 0, 6700);
    expect("heap-overrun", next, next, LARGE, block, "overwriter=zero");
    die_by_abort();
#endif
}
