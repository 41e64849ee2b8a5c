/* A variable is given to a sized delete, as `delete` of an object that was never made by `new` does in C++14 and later: it asks
 * nobody what the address is, and the thread cache of that size keeps it as a free block.
 *   STACK      a variable of main
 *   STATIC     a variable of the program
 *   WRITTEN    nothing of the kind: a freed object's first member is made to point to a variable of main
 *
 * What remains: the thread cache's list leads to the variable and, by its first word, on to the block that was freed before it;
 * after WRITTEN it leads to the variable and no further. */
#include "common.h"

void tc_delete_sized(void *p, size_t size);
static void (*volatile delete_sized)(void *, size_t) = tc_delete_sized;

enum { SIZE = 112, BLOCKS = 12 };
struct object {
    uintptr_t words[SIZE / 8];
};
static struct object of_the_program UNUSED;

int main(void)
{
    static struct object *blocks[BLOCKS];
    struct object of_main;
    memset(&of_main, 1, sizeof of_main);
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = (struct object *)do_malloc(SIZE);
    for (int i = 1; i < BLOCKS; i += 2)
        do_free(blocks[i]);
#if defined WRITTEN
    *(struct object *volatile *)blocks[BLOCKS - 1] = &of_main;
    expect("use-after-free-write", blocks[BLOCKS - 1], blocks[BLOCKS - 1], SIZE, NULL, NULL);
#else
#ifdef STATIC
    struct object *object = &of_the_program;
#else
    struct object *object = &of_main;
#endif
    delete_sized(object, SIZE);
    need(*(struct object *volatile *)object == blocks[BLOCKS - 1], "the variable is not in the list");
    expect("invalid-free-entry", object, NULL, 0, NULL, NULL);
#endif
    die_by_abort();
}
