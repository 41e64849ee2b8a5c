/* An array of 20 structures of 24 bytes: the 21st is written.
 *
 * What remains: the block behind, which was never handed out, begins with what the array's elements go on with: a number that
 * all have, their own addresses, their own numbers. */
#include "common.h"

enum { COUNT = 20 };

struct element {
    uint64_t kind;
    struct element *self;
    uint64_t number;
};

int main(void)
{
    volatile struct element *array = (struct element *)do_malloc(COUNT * sizeof *array);
    for (uint64_t i = 0; i <= COUNT; i++) {
        array[i].kind = 3;
        array[i].self = (struct element *)array + i;
        array[i].number = i;
    }
    expect("heap-overrun", array + COUNT, array + COUNT, COUNT * sizeof *array, array, NULL);
    die_by_abort();
}
