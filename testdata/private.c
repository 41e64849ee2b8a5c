/* A program with an allocator of its own: malloc carves mappings and takes nothing back. Healthy; OTHER says what of it cannot be
 * read. */
#include "common.h"
#include <errno.h>
#include <sys/mman.h>

enum { PIECE = 1 << 20, HEADER = 16 };

static char *fresh_from, *fresh_to;

void *malloc(size_t size)
{
    size_t bytes = (size + HEADER + 15) & ~(size_t)15;
    if (!fresh_from || bytes > (size_t)(fresh_to - fresh_from)) {
        size_t piece = bytes > PIECE ? (bytes + 4095) & ~(size_t)4095 : PIECE;
        char *fresh = mmap(NULL, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (fresh == MAP_FAILED) {
            errno = ENOMEM;
            return NULL;
        }
        fresh_from = fresh;
        fresh_to = fresh + piece;
    }
    char *block = fresh_from + HEADER;
    *(size_t *)fresh_from = size;
    fresh_from += bytes;
    return block;
}

void free(void *block)
{
    (void)block;
}

void *calloc(size_t count, size_t size)
{
    size_t bytes;
    return __builtin_mul_overflow(count, size, &bytes) ? NULL : malloc(bytes); /* fresh, so zero */
}

void *realloc(void *block, size_t size)
{
    char *fresh = malloc(size);
    if (fresh && block) {
        size_t had = *(size_t *)((char *)block - HEADER);
        for (size_t i = 0; i < had && i < size; i++)
            fresh[i] = ((char *)block)[i];
    }
    return fresh;
}

int main(void)
{
    for (int i = 0; i < 1000; i++)
        memset(do_malloc(1000), i, 1000);
    say("OTHER allocator=" OTHER);
    die_by_abort();
}
