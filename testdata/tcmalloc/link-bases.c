/* A double free whose frames lie in modules where addresses in memory, link addresses and file offsets all differ: the
 * shared object link-bases-module.c is linked at 0x10000000, with gaps between its segments that its file does not have, and
 * loaded elsewhere, because the program itself, not position independent, is there. Who takes one for the other finds
 * the wrong functions or bytes. Death is in `module_use`, called by `module_pass`. Evidence as in double-free.c. */
#include "common.h"

void module_start(void *(*obtain)(size_t), void (*release)(void *), void (*tell)(void *));
void module_pass(void);

static __attribute__((noinline)) void tell(void *p)
{
    expect("double-free", p, p, 48, NULL, NULL);
    say("DIES signal=SIGSEGV function=module_use");
}

int main(void)
{
    module_start(do_malloc, do_free, tell);
    module_pass();
    return 0;
}
