/* Something is freed that must not be freed so. jemalloc notices none of it and caches the pointer. The program aborts. By variant:
 *   INNER      free of a pointer INSIDE bytes into a block of SIZE bytes: misaligned-free-entry. For a large block it must be in the
 *              first page, else jemalloc itself crashes
 *   WRONG      sdallocx (what sized operator delete and Rust call) with the size WRONG instead of SIZE: the block is in the cache of
 *              another class, that is, invalid-free-entry
 *   GLOBAL     sdallocx of a variable of the program: invalid-free-entry
 *   STACK      the same of a variable on the stack
 *   MAPPED     the same of memory that the program has mapped itself */
#include "jemalloc/jemalloc.h"
#include <sys/mman.h>

#ifndef SIZE
#define SIZE 64
#endif

enum { BLOCKS = 8 };
static char variable[256] __attribute__((aligned(64)));

int main(void)
{
    char *blocks[BLOCKS];
    char local[256] UNUSED __attribute__((aligned(64)));
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = (char *)do_malloc(SIZE);
    char *p UNUSED = blocks[3];
    memset(local, 0, sizeof local);
    memset(variable, 1, sizeof variable);
#if defined INNER
    /* Where in its first page a large block begins is chance. */
    for (int i = 0; SIZE > 14336 && i < BLOCKS && ((uintptr_t)p & 4095) + INNER >= 4096; i++)
        p = blocks[i];
    do_free(p + INNER);
    expect("misaligned-free-entry", p + INNER, p, SIZE, NULL, NULL);
#elif defined WRONG
    do_sdallocx(p, WRONG, 0);
    expect("invalid-free-entry", p, p, SIZE, NULL, NULL);
#else
#if defined GLOBAL
    char *volatile foreign = variable;
#elif defined STACK
    char *volatile foreign = local;
#elif defined MAPPED
    char *volatile foreign = (char *)mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + 1024;
    memset(foreign, 'f', 64); /* what was never touched is not in the core, and then nothing is known of it */
#endif
    do_sdallocx(foreign, SIZE, 0);
    expect("invalid-free-entry", foreign, NULL, 0, NULL, NULL);
#endif
    die_by_abort();
}
