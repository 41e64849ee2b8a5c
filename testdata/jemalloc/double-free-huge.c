/* A block too large for the threads' caches is freed twice. The second free is of memory that the page cache holds already, and puts
 * it there once more: counts of pages no longer add up. Where in its first page the block began is not known any more: `address` is the
 * page. 5.3.1 dies of the second free (SIGSEGV): there it is the block. */
#include "jemalloc/jemalloc.h"

enum { SIZE = 300000 };

int main(void)
{
    char *volatile before = (char *)do_malloc(SIZE);
    char *volatile p = (char *)do_malloc(SIZE);
    char *volatile after = (char *)do_malloc(SIZE);
    int dies = is_version("5.3.1");
    need(before && after, "no memory");
    do_free(p);
    expect("double-free", dies ? p : p - (uintptr_t)p % 4096, NULL, 0, NULL, NULL);
    if (dies)
        say("DIES signal=SIGSEGV");
    do_free(p);
    need(!dies, "free came back");
    die_by_abort();
}
