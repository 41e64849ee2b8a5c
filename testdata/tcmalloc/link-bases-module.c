/* The shared object of link-bases.c. */
#include <stddef.h>
#include <stdint.h>

struct owner {
    uint64_t unused[2];
    uint64_t *target;
    uint64_t more[3];
};

static uint64_t target[20000];
uint64_t module_data[3] = {0x1122334455667788, 1, 2};
const uint64_t module_constant = 0x8877665544332211;
static struct owner *volatile owner;
static void (*tell)(void *);

__attribute__((noinline)) static void module_use(struct owner *volatile at)
{
    *at->target = module_constant;
}

__attribute__((noinline)) void module_pass(void)
{
    tell(owner);
    module_use(owner);
    module_data[0]++;
}

void module_start(void *(*obtain)(size_t), void (*release)(void *), void (*told)(void *))
{
    struct owner *p = obtain(sizeof *p);
    release(p);
    release(p);
    struct owner *volatile one = obtain(sizeof *p);
    struct owner *volatile two = obtain(sizeof *p);
    one->target = &target[10000];
    two->target = (uint64_t *)42;
    owner = one;
    tell = told;
}
