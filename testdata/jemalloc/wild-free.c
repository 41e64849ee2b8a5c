/* free of what is no block at all: jemalloc follows the page map, which has nothing there, and crashes (SIGSEGV in free or what it
 * calls). Its state is as it was, so nothing is wrong with the heap. By variant: STACK, PAGE (a page inside a large block). */
#include "jemalloc/jemalloc.h"

int main(void)
{
    char local[256] __attribute__((aligned(64)));
    char *volatile large = (char *)do_malloc(100000);
    memset(local, 0, sizeof local);
#ifdef STACK
    char *volatile p = local;
#else
    char *volatile p = large + 8192;
#endif
    (void)large;
    say("HEALTHY");
    say("DIES signal=SIGSEGV");
    do_free(p);
    give_up("free came back");
}
