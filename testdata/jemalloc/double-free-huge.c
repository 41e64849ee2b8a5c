/* A block too large for the threads' caches is freed twice; the second free is of memory that the page cache holds already, and
 * puts it there once more. What remains: counts of pages that do not add up. Which block it was can no longer be told for sure, so
 * `address` ... */
#include "jemalloc/jemalloc.h"

enum { SIZE = 300000 };

int main(void)
{
    char *volatile before = (char *)do_malloc(SIZE);
    char *p = (char *)do_malloc(SIZE);
    char *volatile after = (char *)do_malloc(SIZE);
    need(before && after, "no memory");
    do_free(p);
    do_free(p);
    expect("double-free", p, NULL, 0, NULL, NULL);
    die_by_abort();
}
