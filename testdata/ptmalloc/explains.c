/* A heap that is damaged, and a crash that comes of it or does not: the truth has `explains=yes|no|unknown` for each error. Text past the
 * end of a block stands in the header of the one behind it, which nobody frees. By variant the program dies
 *   GLOBAL     of a null pointer that was read from a variable                             no
 *   MEMBER     of one that was read from a block far away                                  no
 *   CALLED     in a function of the C library that was given such a null pointer           no
 *   SENT       because another process sent the signal                                     no
 *   ZEROED     of one that the same write put into the next block, zeros all over          unknown
 *   RETURNED   of one that a function returned who did not find what it looked for         unknown
 *   WILD       of text that stands in a variable                                           unknown
 *   OWN        because it aborts                                                           unknown
 *   DEEP       because its stack ends                                                      no
 *   TEXT       of text that the same write put into the next block                         yes
 *   TABLE      of a call through a table of functions that the same write overwrote        yes
 *   BEFORE     of text in the next block, which was written by another store               unknown
 *   EMPTY      of a call of null, which stands in a block far away                         no
 *   FREED      of a read of another block, which is free: that explains it                 no, and yes of the other */
#include "ptmalloc.h"
#include <sys/prctl.h>

enum { SIZE = 0x28 };

struct table {
    int version;
    int (*run)(void *);
};
struct object {
    const struct table *table;
    char *name;
    long numbers[2];
    char *left;
};
static UNUSED int run(void *object)
{
    return object != NULL;
}
static UNUSED const struct table table = {1, run};

static struct object *objects[12];
static UNUSED struct object *volatile far_object;
static UNUSED char *volatile null_name, *volatile wild_name;
static volatile long sum;
static volatile int deepest = 1 << 30;

static UNUSED __attribute__((noinline, noclone)) void read_name(struct object *object)
{
    sum += object->name[0];
}

static UNUSED __attribute__((noinline, noclone)) int run_object(struct object *object)
{
    return object->table->run(object) + 1;
}

static UNUSED __attribute__((noinline, noclone)) int run_table(const struct table *table)
{
    return table->run(NULL) + 1;
}

static UNUSED __attribute__((noinline, noclone)) void *look_up(long number)
{
    for (int i = 0; i < 12; i++)
        if (objects[i] && objects[i]->numbers[1] == number)
            return objects[i];
    return NULL;
}

static UNUSED __attribute__((noinline, noclone)) int deep(int depth)
{
    volatile char room[512];
    room[depth & 511] = (char)depth;
    if (depth > deepest)
        return depth;
    return deep(depth + 1) + room[(depth + 1) & 511];
}

static void scene(void)
{
    take((char **)objects, 12, SIZE);
    for (int i = 0; i < 12; i++) {
        memset((void *)objects[i], 0, SIZE);
        objects[i]->table = &table;
        objects[i]->numbers[1] = 100 + i;
    }
    far_object = objects[11];
    char *a = (char *)objects[2], *b = (char *)objects[3];
#if defined ZEROED
    /* B's header keeps its size's upper bytes, which are zero as well. */
    memset(a + SIZE - 8, 0, 8 + 8 + 16);
    expect_overrun(b, a, SIZE, "explains=unknown");
#elif defined TEXT || defined TABLE
    memcpy(a + SIZE - 8, "Freiherr von und zu Hohenstein auf Burg Lichtenberg", 8 + 8 + 16);
    expect_overrun(b, a, SIZE, "overwriter=ascii explains=yes");
#elif defined BEFORE
    memcpy(a + SIZE, "overrun!", 8);
    memcpy(&objects[3]->name, "a secret", 8);
    expect_overrun(b, a, SIZE, "explains=unknown");
#elif defined FREED
    memcpy(a + SIZE, "overrun!", 8);
    expect_overrun(b, a, SIZE, "explains=no");
    expect_block("dangling-reference", objects[8], SIZE, "explains=yes");
#elif defined DEEP
    memcpy(a + SIZE, "overrun!", 8);
    expect_overrun(b, a, SIZE, "explains=no");
    say("EXPECT kind=stack-overflow explains=yes needs=code");
#elif defined GLOBAL || defined MEMBER || defined CALLED || defined SENT || defined EMPTY
    memcpy(a + SIZE, "overrun!", 8);
    expect_overrun(b, a, SIZE, "explains=no");
#else
    memcpy(a + SIZE, "overrun!", 8);
    expect_overrun(b, a, SIZE, "explains=unknown");
#endif

#if defined SENT
    say("DIES signal=SIGSEGV");
    pid_t self = getpid();
    if (fork() == 0) {
        prctl(PR_SET_DUMPABLE, 0);
        kill(self, SIGSEGV);
        _exit(0);
    }
    for (;;)
        pause();
#elif defined OWN
    die_by_abort();
#else
    say("DIES signal=SIGSEGV");
#endif
#if defined GLOBAL
    sum += *null_name;
#elif defined MEMBER
    read_name(far_object);
#elif defined EMPTY
    sum += run_table((const struct table *)(far_object->numbers + 1));
#elif defined CALLED
    sum += (long)strlen(far_object->name);
#elif defined RETURNED
    struct object *found = look_up(777);
    read_name(found);
#elif defined WILD
    memcpy((void *)&wild_name, "a secret", 8);
    sum += *wild_name;
#elif defined DEEP
    sum += deep(1);
#elif defined TABLE
    sum += run_object(objects[3]);
#elif defined ZEROED || defined TEXT || defined BEFORE
    read_name(objects[3]);
#elif defined FREED
    struct object *volatile freed = objects[8];
    do_free(objects[8]);
    read_name(freed);
#endif
}
