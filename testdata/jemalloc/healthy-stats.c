/* A healthy heap whose counts are known: blocks of classes that nothing uses at start-up, some freed again, and large blocks, two of
 * them freed, the neighbours of one being in use. jemalloc's own totals are the truth; what it prints by malloc_stats_print just before
 * goes to standard error and must have the same total. CONF says how jemalloc is set up. */
#include "jemalloc/classes.h"

#ifdef PREFIXED
#define malloc_stats_print je_malloc_stats_print
#endif
void malloc_stats_print(void (*write)(void *, const char *), void *argument, const char *options);

static char printed[1 << 20];
static size_t printed_length;

static void print(void *unused, const char *text)
{
    (void)unused;
    size_t length = strlen(text);
    need(printed_length + length < sizeof printed, "too much is printed");
    memcpy(printed + printed_length, text, length);
    printed_length += length;
}

static void print_stats(void)
{
    malloc_stats_print(print, NULL, "J"); /* JSON */
    need(write(2, printed, printed_length) == (ssize_t)printed_length, "standard error does not take it");
    if (!has_stats())
        return;
    const char *total = strstr(printed, "\"stats\":");
    total = total ? strstr(total, "\"allocated\":") : NULL;
    need(total != NULL, "no total is printed");
    size_t said = strtoul(total + 12, NULL, 10);
    refresh();
    size_t allocated = number_of("stats.allocated");
    /* 5.3 prints through a buffer of its own, which is counted while it prints. */
    need(said == allocated || said == allocated + 65536, "another total is printed");
}

static void take(size_t size, int count, int give_back)
{
    static char *blocks[2000];
    need_unused(size);
    for (int i = 0; i < count; i++)
        blocks[i] = (char *)do_malloc(size);
    for (int i = 0; i < give_back; i++)
        do_free(blocks[(i * 7) % count]);
}

int main(void)
{
    static const struct {
        size_t size;
        int count, give_back;
    } kinds[] = {{96, 1500, 401}, {192, 20, 3}, {768, 1000, 999}, {3584, 78, 30}, {7168, 33, 5}, {14336, 9, 0}};
    char *large[9];
    say("HEALTHY");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        take(kinds[i].size, kinds[i].count, kinds[i].give_back);
    for (int i = 0; i < 9; i++)
        large[i] = (char *)do_malloc(20480 + 40960 * (size_t)i * (size_t)i);
    do_free(large[1]);
    do_free(large[4]);
    do_free(large[7]);
    char *volatile huge = (char *)do_malloc(9000000);
    need(huge != NULL, "no memory");
    print_stats();
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        say_bin(kinds[i].size, (uint64_t)(kinds[i].count - kinds[i].give_back));
    say_allocated_bytes();
    die_by_abort();
}
