/* With profiling on (CONF): allocations in `take_order` and `take_parcel`, every one of which jemalloc records with its call stack.
 * Some are freed again. SAMPLED address=.. size=.. function=..: what is in use at the end; size is what was asked for,
 * which 5.2 does not record. */
#include "jemalloc/jemalloc.h"

enum { BLOCKS = 60 };
static void *blocks[BLOCKS];

static __attribute__((noinline)) void *take_order(void)
{
    void *order = do_malloc(200);
    memset(order, 1, 200);
    return order;
}

static __attribute__((noinline)) void *take_parcel(void)
{
    void *parcel = do_malloc(30000);
    memset(parcel, 2, 30000);
    return parcel;
}

int main(void)
{
    say("HEALTHY");
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = i % 3 ? take_order() : take_parcel();
    for (int i = 0; i < BLOCKS; i++) {
        if (i % 4 == 3) {
            do_free(blocks[i]);
            continue;
        }
        struct line line = {{0}, 0};
        put_text(&line, "SAMPLED");
        put_address(&line, "address", blocks[i]);
        if (!is_version("5.2"))
            put_count(&line, "size", i % 3 ? 200 : 30000);
        put_text(&line, i % 3 ? " function=take_order" : " function=take_parcel");
        put_end(&line);
    }
    die_by_abort();
}
