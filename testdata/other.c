/* For allocators that are to be recognised and not read: a small healthy program that aborts. OTHER names the one. */
#include "common.h"

int main(void)
{
    void *volatile blocks[100];
    for (int i = 0; i < 100; i++)
        blocks[i] = do_malloc((size_t)i * 17);
    for (int i = 0; i < 100; i += 3)
        do_free(blocks[i]);
    say("OTHER allocator=" OTHER);
    die_by_abort();
}
