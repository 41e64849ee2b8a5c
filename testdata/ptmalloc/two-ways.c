/* Two ways lead to the call of free that glibc refuses: what it was given is one of two pointers.
 *   EITHER   a block, or a place 16 bytes inside of it: only one of them can be refused
 *   NULLS    null, which free takes, or a variable
 * and healthy:
 *   TAKEN    as EITHER, and it is the block */
#include "common.h"

/* What stands in front of the second half would be the size of a chunk with a mapping of its own. */
static UNUSED uint64_t variable[16] __attribute__((aligned(64))) = {[7] = 0x52};
static UNUSED volatile int wrong = 1;

int main(void)
{
    void *volatile before = do_malloc(40);
    uint64_t *block = (uint64_t *)do_malloc(104);
    need(before && block, "no memory");
    memset(block, 0, 104);
    block[1] = 0x52;
#if defined EITHER
    expect("misaligned-free-entry", block + 2, block, 104, NULL, "needs=code");
    say("DIES signal=SIGABRT");
    free(wrong ? block + 2 : block);
    _exit(95);
#elif defined NULLS
    expect("invalid-free-entry", variable + 8, NULL, 0, NULL, "needs=code");
    say("DIES signal=SIGABRT");
    free(wrong ? variable + 8 : NULL);
    _exit(95);
#else
    wrong = 0;
    free(wrong ? block + 2 : block);
    say("HEALTHY");
    die_by_abort();
#endif
}
