// One block, two holders: the late sign of a double free, or of memory that was handed out again. One case a run, with any malloc.
//
// EXPECT kind=aliased-block address=BLOCK says=..., before it dies; a case that says only NONE has holders that agree.
#include "cases.h"

#include <string>
#include <vector>

struct Handler {
    void (*run)(long);
    long argument;
    char name[16];
};
struct Samples {
    long *values;
    long count;
};
struct Request {
    Handler *handler;
    void *user;
    char *bytes;
    const Handler *same;
};
struct Logging : Handler {
    long lines[0];
};
static Request request;
static Samples samples;
static Logging *logging;
static std::vector<long> numbers;
static std::string text;
union Either {
    Handler *handler;
    long *values;
};
static Either either;

static void nothing(long) {}
// A compiler knows that two blocks are not one, and would change the order of what is written to them.
#define IN_ORDER __asm__ volatile("" : : : "memory")
ALONE static void dispatch(Handler *handler) { handler->run(handler->argument); }
static void expect(const void *block, const char *says)
{
    said("EXPECT kind=aliased-block address=%p says=%s\n", block, says);
}
ALONE static void fill(long *values, int count)
{
    for (int i = 0; i < count; i++)
        values[i] = 0x1111111111111111 * (i + 1);
}
// Freed twice: glibc looks for a key in the second word, which is written over.
static void freed_twice()
{
    auto *first = (Handler *)malloc(sizeof(Handler));
    for (int i = 0; i < 2; i++)
        hold(malloc(sizeof(Handler)));
    free(first);
    ((void *volatile *)first)[0] = nullptr;
    ((volatile long *)first)[1] = 7;
    free(first);
    request.handler = (Handler *)malloc(sizeof(Handler));
    *request.handler = {nothing, 2, "handler"};
    IN_ORDER;
    samples = {(long *)malloc(sizeof(Handler)), 4};
    fill(samples.values, 4);
    if (request.handler == (void *)samples.values)
        expect(request.handler, "Handler|long");
    IN_ORDER;
    dispatch(request.handler);
    sink += 1; // The call is not the last thing here, or its frame is this one's.
}
// Freed while it is used, and handed out again to a container.
static void handed_to_vector()
{
    request.handler = (Handler *)malloc(sizeof(Handler));
    *request.handler = {nothing, 2, "handler"};
    IN_ORDER;
    free(request.handler);
    numbers.reserve(4);
    for (int i = 0; i < 4; i++)
        numbers.push_back(0x2222222222222222 + i);
    if (request.handler == (void *)numbers.data())
        expect(request.handler, "Handler|buffer_of_std::vector<long>");
    IN_ORDER;
    dispatch(request.handler);
    sink += 1;
}
static void handed_to_string()
{
    request.handler = (Handler *)malloc(sizeof(Handler));
    *request.handler = {nothing, 2, "handler"};
    IN_ORDER;
    free(request.handler);
    text = "no room for it in the string it"; // 31 characters
    if (request.handler == (void *)text.data())
        expect(request.handler, "Handler|characters_of_std::string");
    IN_ORDER;
    dispatch(request.handler);
    sink += 1;
}
// The other side: a word that is no pointer, and holders that may all be right.
static void wrong_word()
{
    request.handler = (Handler *)malloc(sizeof(Handler));
    fill((long *)request.handler, 4);
}
static void holders_that_agree()
{
    wrong_word();
    request.same = request.handler;
    request.user = request.handler;
    request.bytes = (char *)request.handler;
    logging = (Logging *)request.handler;
    said("NONE\n");
    IN_ORDER;
    dispatch(request.handler);
    sink += 1;
}
static void union_of_two()
{
    wrong_word();
    either.values = (long *)request.handler;
    said("NONE\n");
    IN_ORDER;
    dispatch(request.handler);
    sink += 1;
}
static void one_holder()
{
    wrong_word();
    said("NONE\n");
    IN_ORDER;
    dispatch(request.handler);
    sink += 1;
}
// The other type is right, and so is this one: the pointer in it is null.
static void null_of_both()
{
    request.handler = (Handler *)calloc(1, sizeof(Handler));
    samples = {(long *)request.handler, 4};
    said("NONE\n");
    IN_ORDER;
    dispatch(request.handler);
    sink += 1;
}
static const Case cases[] = {
    CASE(freed_twice), CASE(handed_to_vector), CASE(handed_to_string), CASE(holders_that_agree), CASE(union_of_two), CASE(one_holder),
    CASE(null_of_both),
};
int main(int count, char **arguments)
{
    // What is written only would be left out.
    for (void *variable : {(void *)&request, (void *)&samples, (void *)&logging, (void *)&either})
        hold(variable);
    return run_case(cases, sizeof cases / sizeof cases[0], count, arguments);
}
