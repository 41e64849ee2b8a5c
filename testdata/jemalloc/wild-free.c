/* free of what is no block: jemalloc follows the page map, which has nothing there, and dies of that (SIGSEGV in free or what it
 * calls). Its state is as it was; what tells is that free was given the pointer. By variant:
 *   STACK      a variable on the stack: invalid-free-entry
 *   PAGE       a page inside a large block, not its first: misaligned-free-entry */
#include "jemalloc/jemalloc.h"

int main(void)
{
    char local[256] UNUSED __attribute__((aligned(64)));
    char *volatile large UNUSED = (char *)do_malloc(100000);
#ifdef STACK
    char *volatile p = local;
    memset(local, 0, sizeof local);
    expect("invalid-free-entry", p, NULL, 0, NULL, NULL);
#else
    char *volatile p = large + 8192;
    struct line line = {{0}, 0};
    put_address(&line, "block", large);
    expect("misaligned-free-entry", p, NULL, 0, NULL, line.text + 1);
#endif
    say("DIES signal=SIGSEGV");
    do_free(p);
    give_up("free came back");
}
