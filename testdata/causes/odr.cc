// Two units that define one type name in two ways: what the one allocates is too small for what the other writes.
//
// EXPECT kind=heap-overrun address=BLOCK culprit=BLOCK, before it dies. `same`: a type that both define alike.
#include "cases.h"

struct Session {
    long id;
    void *peer;
    long state[3];
};
struct Other {
    long id;
    void *peer;
    long state[3];
};
struct Holder {
    Session *first, *second;
    Other *other;
};
Holder *volatile holder;
long *volatile inner;
void finish(void *session);

static void two_definitions()
{
    void *one, *two;
    pair(sizeof(Session), &one, &two);
    holder = (Holder *)calloc(1, sizeof(Holder));
    holder->first = (Session *)memset(one, 0, sizeof(Session));
    holder->second = (Session *)memset(two, 0, sizeof(Session));
    said("EXPECT kind=heap-overrun address=%p culprit=%p\n", two, one);
    finish(one);
    free(two);
    abort();
}
static void alike()
{
    void *one, *two;
    pair(sizeof(Other), &one, &two);
    holder = (Holder *)calloc(1, sizeof(Holder));
    holder->other = (Other *)memset(one, 0, sizeof(Other));
    inner = &holder->other->state[1];
    said("EXPECT kind=heap-overrun address=%p culprit=%p\n", two, one);
    ((long *volatile)one)[sizeof(Other) / sizeof(long)] = 0x5e5e5e5e5e5e;
    free(two);
    abort();
}
static const Case cases[] = {CASE(two_definitions), CASE(alike)};
int main(int count, char **arguments)
{
    return run_case(cases, sizeof cases / sizeof cases[0], count, arguments);
}
