// Programs in C in styles of servers and parsers: part of the second set of programs that heapcheck was not made on
// (tools/provenance.py --set second), measured before any change. Output as that of provenance.cc. One case a run; beside: an
// overrun that nobody meets.
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ALONE __attribute__((noinline, noclone))
static volatile long sink;
static void *volatile keep[256];
static int kept;

static void truth(const char *name, const void *block, const void *word)
{
    char line[200];
    int length = snprintf(line, sizeof line, "CLASS %s\n", name);
    if (block)
        length += snprintf(line + length, sizeof line - length, "BLOCK %p\n", block);
    if (word)
        length += snprintf(line + length, sizeof line - length, "WORD %p\n", word);
    if (write(1, line, length) != length)
        _exit(97);
}
static void hold(void *block) { keep[kept++ & 255] = block; }
// Two blocks, the second right behind the first.
static void pair(size_t size, void **first, void **second)
{
    char *all[96];
    for (int count = 0; count < 96; count++) {
        all[count] = malloc(size);
        for (int i = 0; i < count; i++) {
            ptrdiff_t apart = all[count] - all[i], back = -apart;
            ptrdiff_t least = size, most = size + 24;
            *first = apart >= least && apart < most ? all[i] : all[count];
            *second = *first == all[i] ? all[count] : all[i];
            if ((apart >= least && apart < most) || (back >= least && back < most))
                return;
        }
    }
    _exit(96);
}
static void beside(void)
{
    void *one, *two;
    pair(760, &one, &two);
    hold(one);
    free(two);
    memset(one, 'z', 760 + 24);
}

// ---- an event loop: a timer that was cancelled stays in the queue ----
struct timer {
    void (*fire)(struct timer *, void *user);
    void *user;
    long when;
    char name[24];
};
struct loop {
    struct timer *queue[32];
    int timers;
    long now;
};
static void tick(struct timer *timer, void *user) { *(long *)user += timer->when; }
static struct timer *add_timer(struct loop *loop, const char *name, long when, void *user)
{
    struct timer *timer = calloc(1, sizeof *timer);
    timer->fire = tick;
    timer->user = user;
    timer->when = when;
    snprintf(timer->name, sizeof timer->name, "%s", name);
    loop->queue[loop->timers++] = timer;
    return timer;
}
ALONE static int run_loop(struct loop *loop)
{
    int fired = 0;
    while (loop->timers) {
        struct timer *timer = loop->queue[--loop->timers];
        if (timer->when >= loop->now)
            continue;
        timer->fire(timer, timer->user);
        fired++;
    }
    return fired;
}
static void f_cancelled_timer(void)
{
    static long total;
    struct loop *loop = calloc(1, sizeof *loop);
    hold(loop);
    loop->now = 1000;
    add_timer(loop, "keepalive", 10, &total);
    struct timer *idle = add_timer(loop, "idle", 20, &total);
    struct timer *other = add_timer(loop, "flush", 30, &total);
    (void)other;
    struct timer *spare = malloc(sizeof *spare);
    free(spare);
    free(idle);
    truth("freed", idle, &idle->fire);
    sink += run_loop(loop);
    _exit(95);
}

// ---- an intrusive list: an entry is freed and not taken out ----
struct link {
    struct link *next, *prev;
};
struct peer {
    struct link all;
    int socket, state;
    char address[46];
};
#define peer_of(it) ((struct peer *)((char *)(it) - offsetof(struct peer, all)))
ALONE static int count_ready(struct link *head)
{
    int ready = 0;
    for (struct link *at = head->next; at != head; at = at->next)
        ready += peer_of(at)->state == 2;
    return ready;
}
static void f_peer_left_in_list(void)
{
    static struct link head = {&head, &head};
    struct peer *peers[5];
    for (int i = 0; i < 5; i++) {
        peers[i] = malloc(sizeof(struct peer));
        *peers[i] = (struct peer){{head.next, &head}, i + 3, i % 3, "10.0.0.1"};
        head.next->prev = &peers[i]->all;
        head.next = &peers[i]->all;
    }
    free(peers[4]);
    free(peers[2]);
    truth("freed", peers[4], &peers[4]->all.next);
    truth("freed", peers[2], &peers[2]->all.next);
    sink += count_ready(&head);
    _exit(95);
}

// ---- a callback with a context that is gone ----
struct weights {
    const double *table;
    size_t length;
    double sum;
};
typedef int visitor(const int *item, void *user);
ALONE static int for_each(const int *items, size_t count, visitor *visit, void *user)
{
    for (size_t i = 0; i < count; i++)
        if (visit(items + i, user))
            return 1;
    return 0;
}
ALONE static int add_weight(const int *item, void *user)
{
    struct weights *weights = user;
    weights->sum += weights->table[*item];
    return weights->sum > 1e9;
}
static void f_user_of_callback(void)
{
    static const double table[64] = {1, 2, 3};
    struct weights *weights = malloc(sizeof *weights), *other = malloc(sizeof *weights);
    *weights = (struct weights){table, 64, 0};
    int *items = malloc(40 * sizeof *items);
    for (int i = 0; i < 40; i++)
        items[i] = i;
    hold(items);
    free(other);
    free(weights);
    truth("freed", weights, &weights->table);
    sink += for_each(items, 40, add_weight, weights);
    _exit(95);
}

// ---- an arena of indices: an end mark that the reader does not know ----
struct entry {
    uint32_t left, right;
    uint64_t key;
};
ALONE static int depth_of(const struct entry *arena, uint32_t at, uint64_t key)
{
    int depth = 0;
    while (at != 0 && arena[at].key != key) {
        at = key < arena[at].key ? arena[at].left : arena[at].right;
        depth++;
    }
    return depth;
}
static void w_end_of_arena(void)
{
    struct entry *arena = calloc(64, sizeof *arena);
    hold(arena);
    for (uint32_t i = 1; i < 20; i++)
        arena[i] = (struct entry){0, i + 1, i * 10};
    arena[19].right = 0x7ffffff0;
    truth("wild", arena, &arena[19].right);
    sink += depth_of(arena, 1, 500);
    _exit(95);
}

// ---- a pointer with a count in its upper bits, used as it is ----
struct object {
    long references;
    char name[40];
};
struct cell {
    uint64_t hash;
    uint64_t packed; // pointer in 48 bits, count above
};
ALONE static long references_of(const struct cell *cells, int at) { return ((const struct object *)(uintptr_t)cells[at].packed)->references; }
static void w_packed_pointer(void)
{
    struct cell *cells = calloc(8, sizeof *cells);
    struct object *object = calloc(1, sizeof *object);
    hold(cells);
    for (int i = 0; i < 8; i++)
        cells[i] = (struct cell){i, (uint64_t)(uintptr_t)object | (uint64_t)i << 48};
    truth("wild", cells, &cells[5].packed);
    sink += references_of(cells, 5);
    _exit(95);
}

// ---- a parser's stack of tokens runs over the scope behind it ----
struct token {
    int kind, line;
    const char *text;
};
struct scope {
    int (*lookup)(struct scope *, const char *);
    struct scope *parent;
    char names[112];
};
static int find_name(struct scope *scope, const char *name) { return strstr(scope->names, name) != NULL; }
ALONE static int scan(struct token *tokens, const char *source)
{
    int count = 0;
    for (const char *at = source; *at; at++)
        if (*at != ' ')
            tokens[count++] = (struct token){*at, 1 + count, at};
    return count;
}
static void o_tokens_over_scope(void)
{
    void *one, *two;
    pair(sizeof(struct scope), &one, &two);
    struct token *tokens = one;
    struct scope *scope = two;
    *scope = (struct scope){find_name, NULL, "x y z"};
    hold(one);
    hold(two);
    truth("overrun", one, &scope->lookup);
    sink += scan(tokens, "( a + b * c ) / d");
    sink += scan(tokens, "( a + b * c )  / ( d )");
    sink += scope->lookup(scope, "z");
    _exit(95);
}

// ---- a visitor of a table that grows meanwhile ----
struct pairs {
    const char *key;
    long *value;
};
struct table {
    struct pairs *all;
    size_t used, room;
};
static char *volatile label;
static void visit_pair(struct table *table, struct pairs *it)
{
    *it->value += 1;
    if (table->used == table->room) {
        table->room *= 64;
        table->all = realloc(table->all, table->room * sizeof *table->all);
        // What is allocated next takes the old place.
        label = malloc(16 * sizeof(struct pairs));
        memset(label, '-', 16 * sizeof(struct pairs) - 1);
        label[16 * sizeof(struct pairs) - 1] = 0;
    }
}
ALONE static void visit_all(struct table *table, struct pairs *from, struct pairs *to)
{
    for (struct pairs *it = from; it < to; it++)
        visit_pair(table, it);
}
static void f_table_grows_in_visit(void)
{
    static long values[16];
    struct table *table = malloc(sizeof *table);
    *table = (struct table){malloc(16 * sizeof(struct pairs)), 16, 16};
    hold(malloc(16 * sizeof(struct pairs)));
    hold(table);
    for (int i = 0; i < 16; i++)
        table->all[i] = (struct pairs){"key", values + i};
    truth("freed", table->all, &table->all[1].value);
    visit_all(table, table->all, table->all + 16);
    _exit(95);
}

// ---- an error path that cleans up what was never set ----
struct buffer {
    char *bytes;
    size_t used, room;
};
struct connection {
    long socket, opened;
    struct buffer *out, *in;
    char host[32];
};
ALONE static void close_connection(struct connection *it)
{
    if (it->out && it->out->used)
        sink += it->out->bytes[0];
    free(it);
}
ALONE static struct connection *open_connection(const char *host)
{
    struct connection *it = malloc(sizeof *it);
    it->socket = -1;
    it->opened = 0;
    snprintf(it->host, sizeof it->host, "%s", host);
    truth("uninitialised", it, &it->out);
    if (it->socket < 0) {
        close_connection(it);
        return NULL;
    }
    it->out = it->in = NULL;
    return it;
}
static void u_error_path(void)
{
    char *urls[4];
    for (int i = 0; i < 4; i++) {
        urls[i] = malloc(sizeof(struct connection));
        snprintf(urls[i], sizeof(struct connection), "http://www.example.org/a/path/that/is/long/%d", i);
    }
    for (int i = 0; i < 4; i++)
        free(urls[i]);
    sink += open_connection("localhost") != NULL;
    _exit(95);
}

// ---- a plug-in that was unloaded ----
struct plugin {
    char name[16];
    int (*start)(int);
    int (*stop)(int);
};
ALONE static int stop_all(struct plugin **plugins, int count)
{
    int stopped = 0;
    for (int i = 0; i < count; i++)
        stopped += plugins[i]->stop(i);
    return stopped;
}
static int start_none(int it) { return it; }
static void w_unloaded_plugin(void)
{
    static const unsigned char code[] = {0x8d, 0x47, 0x01, 0xc3}; // lea eax, [rdi + 1]; ret
    unsigned char *text = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(text, code, sizeof code);
    mprotect(text, 4096, PROT_READ | PROT_EXEC);
    struct plugin **plugins = calloc(3, sizeof *plugins);
    hold(plugins);
    for (int i = 0; i < 3; i++) {
        plugins[i] = calloc(1, sizeof(struct plugin));
        plugins[i]->start = plugins[i]->stop = start_none;
    }
    plugins[1]->stop = (int (*)(int))(uintptr_t)text;
    sink += stop_all(plugins, 3);
    munmap(text, 4096);
    truth("wild", plugins[1], &plugins[1]->stop);
    sink += stop_all(plugins, 3);
    _exit(95);
}

struct one {
    const char *name;
    void (*run)(void);
};
#define CASE(IT) {#IT, IT}
static const struct one cases[] = {
    CASE(f_cancelled_timer), CASE(f_peer_left_in_list), CASE(f_user_of_callback), CASE(w_end_of_arena), CASE(w_packed_pointer),
    CASE(o_tokens_over_scope), CASE(f_table_grows_in_visit), CASE(u_error_path), CASE(w_unloaded_plugin),
};
int main(int count, char **arguments)
{
    unsigned number = count > 1 ? atoi(arguments[1]) : ~0u;
    if (number >= sizeof cases / sizeof cases[0])
        return 94;
    for (int i = 0; i < 10; i++)
        hold(malloc(24 + i * 40));
    if (count > 2)
        beside();
    cases[number].run();
    return 95;
}
