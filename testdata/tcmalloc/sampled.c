/* For libtcmalloc, the full library, run with TCMALLOC_SAMPLE_PARAMETER: allocations in `take_order` and `take_parcel`, some
 * of which tcmalloc samples: those get a span of their own, with the call stack. The program tells them by that: at the
 * start of a page, and no other block in that page. (malloc_usable_size answers as if they were not sampled.) The last
 * blocks are left out of this, as the newest span of a class may have but one block in use. Some sampled blocks are freed
 * again. It is done by a second thread: in 2.10 the main thread's sampler starts before the variable is read.
 *
 * SAMPLED address=.. size=.. function=..: what is in use and sampled at the end; size is what was asked for. Others of the
 * last blocks may be sampled as well. */
#include "tcmalloc.h"

enum { BLOCKS = 3000, LAST = 300, PAGE = 8192 };
static void *blocks[BLOCKS];
static pthread_barrier_t ready;

static __attribute__((noinline)) void *take_order(void)
{
    void *order = do_malloc(200);
    memset(order, 1, 200);
    return order;
}

static __attribute__((noinline)) void *take_parcel(void)
{
    void *parcel = do_malloc(3000);
    memset(parcel, 2, 3000);
    return parcel;
}

static int is_sampled(int at)
{
    if (at >= BLOCKS - LAST || (uintptr_t)blocks[at] % PAGE != 0)
        return 0;
    for (int i = 0; i < BLOCKS; i++)
        if (i != at && (uintptr_t)blocks[i] / PAGE == (uintptr_t)blocks[at] / PAGE)
            return 0;
    return 1;
}

static void *deal(void *unused)
{
    static char found[BLOCKS];
    int sampled = 0;
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = i % 3 ? take_order() : take_parcel();
    for (int i = 0; i < BLOCKS; i++)
        found[i] = (char)is_sampled(i);
    for (int i = 0; i < BLOCKS; i++) {
        if ((found[i] && sampled % 4 == 3) || (!found[i] && i % 5 == 0))
            do_free(blocks[i]);
        else if (found[i]) {
            struct line line = {{0}, 0};
            put_text(&line, "SAMPLED");
            put_address(&line, "address", blocks[i]);
            put_count(&line, "size", i % 3 ? 200 : 3000);
            put_text(&line, i % 3 ? " function=take_order" : " function=take_parcel");
            put_end(&line);
        }
        sampled += found[i];
    }
    need(sampled >= 8, "too few were sampled");
    pthread_barrier_wait(&ready);
    for (;;)
        pause();
    return unused;
}

int main(void)
{
    pthread_t thread;
    say("HEALTHY");
    pthread_barrier_init(&ready, NULL, 2);
    need(pthread_create(&thread, NULL, deal, NULL) == 0, "no thread");
    pthread_barrier_wait(&ready);
    say_allocated_bytes();
    die_by_abort();
}
