/* A read of an object that was freed: the program dies of the word that it loaded there. By variant:
 *   MEMBER   a pointer in the second word is written through (glibc from 2.34 on: the key of the cache)
 *   LINK     a pointer in the first word is read through (the link of the list)
 *   CALL     a function is called by a table that the first word names, as a virtual one is
 *   WALK     a list is followed over a freed element; its successor stands in its first word
 *   LEFT     a pointer further on is as the program left it, null
 *   AGAIN    the block was handed out again, and what the allocator left there is read: it is in use, and was never written
 * and programs that die otherwise, while registers and slots name free blocks all the time:
 *   NOTHING  a null pointer is read through that was given beside a freed object
 *   EARLIER  a null pointer was read out of the object before that was freed
 *   GIVEN_UP the program aborts */
#include "common.h"
#include <malloc.h>

struct object;
struct table {
    long version;
    long (*run)(struct object *);
};

struct object {
    const struct table *table;
    char *name;
    long numbers[3];
    char *left;
};

static UNUSED long run(struct object *object)
{
    return object->numbers[0];
}

static UNUSED const struct table table = {1, run};
static volatile long sum;

static struct object *make(void)
{
    struct object *object = (struct object *)do_malloc(sizeof *object);
    memset(object, 0, sizeof *object);
    object->table = &table;
    object->name = (char *)&sum;
    object->numbers[0] = 7;
    return object;
}

static UNUSED __attribute__((noinline)) void rename_object(struct object *object)
{
    object->name[0] = 'x';
}

static UNUSED __attribute__((noinline)) long version_of(struct object *object)
{
    return object->table->version + 1;
}

static UNUSED __attribute__((noinline)) long run_object(struct object *object)
{
    return object->table->run(object) + 1;
}

static UNUSED __attribute__((noinline)) long total(struct object *object)
{
    long total = 0;
    for (; object; object = (struct object *)object->table)
        total += object->numbers[0];
    return total;
}

static UNUSED __attribute__((noinline)) void clear_left(struct object *object)
{
    object->left[0] = 0;
}

static UNUSED __attribute__((noinline)) long read_beside(struct object *object, volatile long *number)
{
    sum += object != NULL;
    return *number;
}

static UNUSED __attribute__((noinline)) void free_and_clear(struct object *object)
{
    char *volatile left = object->left;
    do_free(object);
    left[0] = 0;
}

int main(void)
{
    struct object *volatile objects[8];
    for (int i = 0; i < 8; i++)
        objects[i] = make();
    struct object *object = objects[3];
    size_t size = malloc_usable_size(object);
#ifdef WALK
    objects[2]->table = (const struct table *)object;
    struct object *first = objects[2];
#endif
    do_free(objects[1]);
    do_free(objects[5]);
#if defined MEMBER || defined LINK || defined CALL || defined WALK || defined LEFT
    do_free(object);
    expect("dangling-reference", object, object, size, NULL, NULL);
#elif defined EARLIER || defined GIVEN_UP
    (void)size;
    say("HEALTHY");
#elif defined AGAIN
    do_free(object);
    object = (struct object *)do_malloc(sizeof *object);
    expect("uninitialised-use", object, object, size, NULL, "explains=yes needs=code");
#else
    (void)size;
    do_free(object);
    say("HEALTHY");
#endif
#ifdef GIVEN_UP
    do_free(object);
    die_by_abort();
#endif
    say("DIES signal=SIGSEGV");
#if defined MEMBER
    rename_object(object);
#elif defined LINK || defined AGAIN
    sum += version_of(object);
#elif defined CALL
    sum += run_object(object);
#elif defined WALK
    sum += total(first);
#elif defined LEFT
    clear_left(object);
#elif defined NOTHING
    sum += read_beside(object, NULL);
#elif defined EARLIER
    free_and_clear(object);
#endif
    _exit(95);
}
