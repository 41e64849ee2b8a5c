/* Sixteen threads hammer malloc, free and realloc with sizes of many classes, hand blocks to each other, and are
 * stopped in the middle by SIGABRT from outside. The workers block the signal, so the main thread, which only waits,
 * writes the core; where the workers are is chance.
 * Nothing is wrong with this heap: whatever looks so is a state that the allocator passes through. */
#include "common.h"

enum { THREADS = 16, SLOTS = 200, SHARED = 256 };

static void *shared[SHARED];

static size_t some_size(uint32_t *state)
{
    uint32_t kind = next(state) % 100;
    if (kind < 70)
        return 1 + next(state) % 512;
    if (kind < 95)
        return 1 + next(state) % 4096;
    if (kind < 99)
        return 1 + next(state) % 40000;
    return 1 + next(state) % 400000;
}

static void *hammer(void *seed)
{
    void *mine[SLOTS] = {0};
    uint32_t state = (uint32_t)(uintptr_t)seed;
    for (;;) {
        uint32_t at = next(&state) % SLOTS;
        switch (next(&state) % 8) {
        case 0:
            mine[at] = realloc(mine[at], some_size(&state));
            break;
        case 1: /* hand it over: it is freed by another thread */
            mine[at] = __atomic_exchange_n(&shared[next(&state) % SHARED], mine[at], __ATOMIC_ACQ_REL);
            break;
        case 2: /* free many at once, so that lists get long and are flushed */
            if (next(&state) % 16 == 0)
                for (int i = 0; i < SLOTS; i++) {
                    do_free(mine[i]);
                    mine[i] = NULL;
                }
            break;
        default:
            do_free(mine[at]);
            mine[at] = do_malloc(some_size(&state));
            if (mine[at])
                memset(mine[at], 0x5a, 8);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    uint32_t seed = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 0) : 1;
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGABRT);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_t thread;
        need(pthread_create(&thread, NULL, hammer, (void *)(uintptr_t)(seed * 7919 + i * 104729 + 1)) == 0, "no thread");
    }
    pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
    say("HEALTHY");
    say("DIES signal=SIGABRT");
    for (;;)
        pause();
}
