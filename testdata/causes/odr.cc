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
struct Packet {
    long id;
    void *peer;
    long state[4];
};
struct Holder {
    Session *first, *second;
    Other *other;
    Packet *packet;
};
Holder *volatile holder;
long *volatile inner;
void finish(void *session);
void finish_packet(void *packet);

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
struct Wire {
    long *pin;
    long number;
};
ALONE static long pin_of(const Wire *wire) { return *wire->pin; }
// gperftools and jemalloc keep nothing between blocks: what the larger definition has at its end is the start of the next block.
static void over_neighbour()
{
    static long pin;
    void *one, *two;
    pair(sizeof(Packet), &one, &two);
    holder = (Holder *)calloc(1, sizeof(Holder));
    holder->packet = (Packet *)memset(one, 0, sizeof(Packet));
    auto *wire = (Wire *)two;
    *wire = {&pin, 7};
    hold(two);
    said("EXPECT kind=type-conflict address=%p word=%p\n", one, two);
    finish_packet(one);
    sink += pin_of(wire);
    _exit(95);
}
// The same death, of what the program itself has written there.
static void of_its_own()
{
    void *one, *two;
    pair(sizeof(Packet), &one, &two);
    holder = (Holder *)calloc(1, sizeof(Holder));
    holder->packet = (Packet *)memset(one, 0, sizeof(Packet));
    auto *wire = (Wire *)two;
    *wire = {(long *)0x5e5e5e5e5e5e, 7};
    hold(two);
    said("EXPECT address=%p word=%p\n", one, two);
    sink += pin_of(wire);
    _exit(95);
}
static const Case cases[] = {CASE(two_definitions), CASE(alike), CASE(over_neighbour), CASE(of_its_own)};
int main(int count, char **arguments)
{
    return run_case(cases, sizeof cases / sizeof cases[0], count, arguments);
}
