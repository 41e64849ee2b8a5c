/* A block of 300000 bytes, which has a span of its own, is freed twice.
 *
 * 2.8.1 and 2.10 do not notice: the span, which is on a page list already, is put on it again. Its neighbours on the list
 * then are itself, and the page heap counts its bytes as free twice (EARLY aborts here). The next malloc of that size
 * takes it off and leaves it on: the list holds a span that is in use and has no neighbours; the one after that dies in
 * DLL_Remove. That this was a double free can only be guessed then, so corrupt-metadata is as good an answer.
 * 2.16 and 2.18.1 stop in the second free with "Object was not in-use" (SIGILL): no damage to find, so not built. */
#include "common.h"

int main(void)
{
    char *p = (char *)do_malloc(300000);
    char *volatile behind = (char *)do_malloc(300000); /* so that it merges with nothing behind it */
    need(behind != NULL, "no memory");
    do_free(p);
    do_free(p);
#ifdef EARLY
    expect("double-free", p, p, 303104, NULL, NULL);
    die_by_abort();
#endif
    expect("double-free", p, p, 303104, NULL, "or=corrupt-metadata");
    say("DIES signal=SIGSEGV function=DLL_Remove");
    do_malloc(300000);
    do_malloc(300000);
    return 0;
}
