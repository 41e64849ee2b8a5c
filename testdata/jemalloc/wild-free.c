/* free of what is no block: jemalloc follows the page map, which has nothing there, and dies of that (SIGSEGV in free or what it
 * calls). Its state is as it was; what tells is that free was given the pointer. By variant:
 *   STACK      a variable on the stack: invalid-free-entry
 *   REALLOC    the same, given to realloc
 *   NUMBER     what was never a pointer: invalid-free-entry
 *   TEXT       a member that was written over: invalid-free-entry
 *   PAGE       a page inside a large block, not its first: misaligned-free-entry */
#include "jemalloc/jemalloc.h"

int main(void)
{
    char local[256] UNUSED __attribute__((aligned(64)));
    char *volatile large UNUSED = (char *)do_malloc(100000);
#if defined STACK || defined REALLOC
    char *volatile p = local;
    memset(local, 0, sizeof local);
    expect("invalid-free-entry", p, NULL, 0, NULL, NULL);
#elif defined NUMBER
    char *volatile p = (char *)42;
    expect("invalid-free-entry", p, NULL, 0, NULL, "needs=code");
#elif defined TEXT
    struct { char *next, *name; char rest[40]; } *object = do_malloc(sizeof *object);
    strcpy((char *)object, "written over by too long a text");
    char *volatile p = object->name;
    expect("invalid-free-entry", p, NULL, 0, NULL, "needs=code");
#else
    char *volatile p = large + 8192;
    struct line line = {{0}, 0};
    put_address(&line, "block", large);
    expect("misaligned-free-entry", p, NULL, 0, NULL, line.text + 1);
#endif
    say("DIES signal=SIGSEGV");
#ifdef REALLOC
    void *(*volatile do_realloc)(void *, size_t) = realloc;
    large = do_realloc(p, 1000);
#else
    do_free(p);
#endif
    give_up("free came back");
}
