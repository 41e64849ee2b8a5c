/* A block of 48 bytes is given to a sized delete with the size of another class, 208, as a wrong `operator delete(p,
 * size)` or a deleted base class does. tcmalloc believes the size: the block goes into the list of the 208-byte class.
 *
 * What remains: the thread cache's list of 208 is p -> two real blocks of 208, p lies in a span of 48-byte blocks. */
#include "common.h"

void tc_delete_sized(void *p, size_t size);
static void (*volatile delete_sized)(void *, size_t) = tc_delete_sized;

int main(void)
{
    char *real[6];
    for (int i = 0; i < 6; i++)
        real[i] = (char *)do_malloc(208);
    char *p = (char *)do_malloc(48);
    char *volatile other = (char *)do_malloc(48);
    need(other != NULL, "no memory");
    do_free(real[1]);
    do_free(real[3]);
    delete_sized(p, 208);
    need(*(char *volatile *)p == real[3], "p is not in the list of the class of 208");
    expect("invalid-free-entry", p, p, 48, NULL, NULL);
    die_by_abort();
}
