/* A program that says where its memory is: what each of its variables and frames holds, and as its last act what its allocator's own
 * statistics say.
 *
 *   OWNER kind=global|tls|stack|pair name= [other=] [thread=] blocks= bytes=      usable bytes
 *   SUSPECT name= at=                                                            the block at which most of it hangs
 *   FIGURES name=value ...                                                       mallinfo2, or mallctl
 *   MALLOC: ...                                                                  as gperftools prints them
 */
#include "common.h"

#include <malloc.h>
#include <stdio.h>
#include <sys/syscall.h>

#define NEVER_INLINED __attribute__((noinline, noclone))

struct session {
    struct session *next;
    char *payload;
    uint64_t id;
};
struct node {
    struct node *next, *back;
    char text[40];
};

static struct session **volatile sessions;
static struct node *volatile by_key[50], *volatile by_age;
static __thread struct node *volatile per_thread;
static volatile int is_ready;
static uint32_t state = 4711;

extern int mallctl(const char *, void *, size_t *, void *, size_t) __attribute__((weak));
extern void MallocExtension_GetStats(char *, int) __attribute__((weak));

struct sum {
    uint64_t blocks, bytes;
};

static void *counted(struct sum *sum, size_t size)
{
    void *made = do_malloc(size);
    need(made != NULL, "malloc fails");
    memset(made, 0, malloc_usable_size(made));
    sum->blocks++;
    sum->bytes += malloc_usable_size(made);
    return made;
}

static void begin_owner(struct line *line, const char *kind, const char *name)
{
    line->length = 0;
    put_text(line, "OWNER kind=");
    put_text(line, kind);
    put_text(line, " name=");
    put_text(line, name);
}

static void end_owner(struct line *line, struct sum sum)
{
    put_count(line, "blocks", sum.blocks);
    put_count(line, "bytes", sum.bytes);
    put_end(line);
}

NEVER_INLINED static void fill_sessions(void)
{
    enum { BUCKETS = 1000, SESSIONS = 2000 };
    struct sum sum = {0, 0};
    struct line line;
    struct session **buckets = counted(&sum, BUCKETS * sizeof *buckets);
    for (int i = 0; i < SESSIONS; i++) {
        struct session *session = counted(&sum, sizeof *session);
        session->payload = counted(&sum, 100 + next(&state) % 1400);
        session->id = (uint64_t)i;
        session->next = buckets[i % BUCKETS];
        buckets[i % BUCKETS] = session;
    }
    begin_owner(&line, "global", "sessions");
    end_owner(&line, sum);
    put_text(&line, "SUSPECT name=sessions");
    put_address(&line, "at", buckets);
    put_end(&line);
    sessions = buckets;
}

NEVER_INLINED static void fill_pair(void)
{
    struct sum sum = {0, 0};
    struct line line;
    for (int i = 0; i < 50; i++) {
        struct node *made = counted(&sum, sizeof *made);
        made->next = by_age;
        by_key[i] = made;
        by_age = made;
    }
    begin_owner(&line, "pair", "by_key");
    put_text(&line, " other=by_age");
    end_owner(&line, sum);
}

NEVER_INLINED static struct node *chain(struct sum *sum, int length)
{
    struct node *first = NULL;
    while (length-- > 0) {
        struct node *made = counted(sum, sizeof *made);
        made->next = first;
        if (first)
            first->back = made;
        first = made;
    }
    return first;
}

NEVER_INLINED static void fill_thread_local(void)
{
    struct sum sum = {0, 0};
    struct line line;
    per_thread = chain(&sum, 30);
    begin_owner(&line, "tls", "per_thread");
    put_count(&line, "thread", (uint64_t)syscall(SYS_gettid));
    end_owner(&line, sum);
}

/* Small blocks of many sizes and large ones, of which most are freed again: every list and cache has something. */
NEVER_INLINED static void stir(void)
{
    enum { BLOCKS = 3000 };
    static void *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = do_malloc(8 + next(&state) % (i % 100 ? 900 : 40000));
    void *large = do_malloc(900000), *larger = do_malloc(5000000);
    for (int i = 0; i < BLOCKS; i++) {
        do_free(blocks[i]);
        blocks[i] = NULL;
    }
    do_free(larger);
    blocks[0] = large;
}

static void *second(void *unused)
{
    struct sum sum = {0, 0};
    struct line line;
    struct node *volatile own = chain(&sum, 40);
    void *volatile freed[60];
    for (int i = 0; i < 60; i++)
        freed[i] = do_malloc(64);
    for (int i = 0; i < 60; i++) {
        do_free(freed[i]);
        freed[i] = NULL;
    }
    begin_owner(&line, "stack", "second");
    put_count(&line, "thread", (uint64_t)syscall(SYS_gettid));
    end_owner(&line, sum);
    is_ready = 1;
    for (;;)
        pause();
    return own ? unused : NULL;
}

static uint64_t number(const char *name)
{
    size_t value = 0, length = sizeof value;
    need(mallctl(name, &value, &length, NULL, 0) == 0, name);
    return value;
}

static void say_figures(void)
{
    static char text[1 << 14];
    struct line line = {{0}, 0};
    if (MallocExtension_GetStats) {
        MallocExtension_GetStats(text, 9000);
        size_t length = strlen(text);
        need(write(1, text, length) == (ssize_t)length, "no room");
        return;
    }
    put_text(&line, "FIGURES");
    if (mallctl) {
        uint64_t epoch = 1;
        size_t length = sizeof epoch;
        need(mallctl("epoch", &epoch, &length, &epoch, length) == 0, "no epoch");
        put_count(&line, "allocated", number("stats.allocated"));
        put_count(&line, "active", number("stats.active"));
        put_count(&line, "mapped", number("stats.mapped"));
        put_count(&line, "retained", number("stats.retained"));
    } else {
        struct mallinfo2 info = mallinfo2();
        put_count(&line, "arena", info.arena);
        put_count(&line, "ordblks", info.ordblks);
        put_count(&line, "smblks", info.smblks);
        put_count(&line, "hblks", info.hblks);
        put_count(&line, "hblkhd", info.hblkhd);
        put_count(&line, "usmblks", info.usmblks);
        put_count(&line, "fsmblks", info.fsmblks);
        put_count(&line, "uordblks", info.uordblks);
        put_count(&line, "fordblks", info.fordblks);
        put_count(&line, "keepcost", info.keepcost);
    }
    put_end(&line);
}

NEVER_INLINED static void end_in_frame(void)
{
    struct sum sum = {0, 0};
    struct line line;
    struct node *volatile own = chain(&sum, 60);
    begin_owner(&line, "stack", "end_in_frame");
    put_count(&line, "thread", (uint64_t)syscall(SYS_gettid));
    end_owner(&line, sum);
    say("HEALTHY");
    say_figures();
    die_by_abort();
    need(own != NULL, "never");
}

int main(void)
{
    pthread_t thread;
    fill_sessions();
    fill_pair();
    fill_thread_local();
    stir();
    need(pthread_create(&thread, NULL, second, NULL) == 0, "no thread");
    while (!is_ready)
        usleep(1000);
    usleep(10000);
    end_in_frame();
}
