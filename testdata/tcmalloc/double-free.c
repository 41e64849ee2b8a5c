/* A block of 48 bytes is freed twice; malloc then hands it out for ever. Two owners hold it, one writes what the
 * other reads as a pointer, and the program dies of that (SIGSEGV in `use`).
 *
 * What remains: the thread cache's list of the class is p -> p. The owners write past the first word only, so the
 * self-link survives. length_ was 2 after the second free and is 0 again after the two malloc: a list that is not
 * empty, with length 0. Compiled with PRISTINE it aborts right after the second free (length 2, one block in the list);
 * with WRAPPED it allocates three times, so that length_ has gone below 0; with USED the third owner fills the block, and the
 * self-link is gone. */
#include "common.h"

struct owner {
    uint64_t unused[2];
    uint64_t *target;
    uint64_t more[3];
};

static __attribute__((noinline)) void use(struct owner *volatile owner)
{
    *owner->target = 1;
}

int main(void)
{
    static uint64_t target;
    struct owner *p = (struct owner *)do_malloc(sizeof *p);
    do_free(p);
    do_free(p);
    expect("double-free", p, p, sizeof *p, NULL, NULL);
#ifdef PRISTINE
    die_by_abort();
#endif
    struct owner *volatile one = (struct owner *)do_malloc(sizeof *p);
    struct owner *volatile two = (struct owner *)do_malloc(sizeof *p);
    need(one == p && two == p, "p was not handed out twice");
#ifdef WRAPPED
    need(do_malloc(sizeof *p) == p, "p was not handed out a third time");
#ifdef USED
    memset(p, 'U', sizeof *p);
#endif
    die_by_abort();
#endif
    one->target = &target;
    two->target = (uint64_t *)42;
    say("DIES signal=SIGSEGV function=use");
    use(one);
    return 0;
}
