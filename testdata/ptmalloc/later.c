/* Damage that kills the program later and elsewhere, by a fault.
 *   WILD     off by one onto B's size; freeing B makes glibc look for the block before it, by text
 *   RAISED   the same, and a handler of the fault raises the signal again: when it returns, or at once with NODEFER
 *   RETURNED a link in the cache is overwritten with the address of a constant; malloc gives it out, and the program dies writing to
 *            it (before 2.32, where links are not encoded) */
#include "ptmalloc.h"

static UNUSED char *blocks[8];
static const uint64_t constants[32] __attribute__((aligned(16))) = {1, 2, 3};

static UNUSED void report(int signal, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(signal, &action, NULL);
    raise(signal);
}

static void scene(void)
{
    (void)constants;
#if defined WILD
#ifdef RAISED
    struct sigaction action = {.sa_sigaction = report, .sa_flags = RAISED};
    sigaction(SIGSEGV, &action, NULL);
#endif
    enum { SIZE = 0xf8 };
    take_fillers(SIZE);
    take(blocks, 4, SIZE);
    fill_cache();
    memset(blocks[1], 'x', SIZE);
    blocks[1][SIZE] = 0;
    expect_overrun(blocks[2], blocks[1], SIZE, NULL);
    say("DIES signal=SIGSEGV function=free");
    do_free(blocks[2]);
#elif defined RETURNED
    take(blocks, 5, 72);
    do_free(blocks[0]);
    do_free(blocks[1]);
    do_free(blocks[2]);
    do_free(blocks[3]);
    *(const uint64_t *volatile *)blocks[2] = constants + 2;
    do_malloc(72);
    need(do_malloc(72) == blocks[2], "malloc gave another block");
    /* Block 2 is in use again; its list now begins with what stands in the constant. */
    expect_entry("invalid-free-entry", constants + 2, NULL, "or=use-after-free-write");
    say("DIES signal=SIGSEGV");
    volatile char *p = (volatile char *)do_malloc(72);
    *p = 'x';
#endif
    _exit(95);
}
