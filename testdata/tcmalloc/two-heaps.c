/* Two heaps in one process, each with a damage: the program's malloc is tcmalloc's, and that of a plug-in, which is loaded so that
 * it looks into its own libraries first (RTLD_DEEPBIND), is glibc's. Aborts at once.
 *   tcmalloc's: a block of 48 bytes freed twice
 *   glibc's: a block of 40 bytes written past its end, by the plug-in */
#include "common.h"
#include <dlfcn.h>

int main(void)
{
    void *plugin = dlopen(PLUGIN, RTLD_NOW | RTLD_DEEPBIND);
    need(plugin != NULL, "no plug-in");
    void (*overrun)(char **, char **) = (void (*)(char **, char **))dlsym(plugin, "overrun");
    need(overrun != NULL, "no function in the plug-in");
    char *culprit = NULL, *victim = NULL;
    overrun(&culprit, &victim);
    struct line line = {{0}, 0};
    put_text(&line, "EXPECT kind=heap-overrun");
    put_address(&line, "address", victim);
    put_address(&line, "culprit", culprit);
    put_text(&line, " culprit_size=40 overwriter=ascii");
    put_end(&line);

    char *p = (char *)do_malloc(48);
    do_free(p);
    do_free(p);
    expect("double-free", p, p, 48, NULL, NULL);
    say("SERVES allocator=ptmalloc module=libtwo-heaps.so");
    say("SERVES allocator=tcmalloc module=two-heaps");
    die_by_abort();
}
