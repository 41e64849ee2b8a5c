/* Threads that keep an allocator busy, and unusual ways for a healthy process to die: in a signal handler, in a fork's child.
 *
 * WORK_SIZE(seed) may say how large the blocks are; before a fork's child dies it calls SAY_IN_CHILD() if there is such a thing. */
#ifndef BUSY_H
#define BUSY_H

#include "common.h"
#include <sys/wait.h>

#ifndef WORK_SIZE
#define WORK_SIZE(seed) (1 + next(seed) % 2000)
#endif
#ifndef SAY_IN_CHILD
#define SAY_IN_CHILD() (void)0
#endif

#if defined HANDLER
static void stop(int signal)
{
    (void)signal;
    die_by_abort();
}

/* A tenth of a second later, most likely in the middle of malloc or free. With ALTSTACK the handler has a stack of its own. */
static void stop_in_handler(void)
{
    struct sigaction action = {.sa_handler = stop};
#ifdef ALTSTACK
    static char stack[65536];
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    need(sigaltstack(&other, NULL) == 0, "no other stack");
    action.sa_flags = SA_ONSTACK;
#endif
    sigaction(SIGALRM, &action, NULL);
    ualarm(100000, 0);
}
#endif

enum { THREADS = 6, SLOTS = 300 };
static pthread_barrier_t ready;

/* Allocates and frees `rounds` times (for ever if 0) and keeps what is left. */
static UNUSED void work(uint32_t seed, int rounds)
{
    void *mine[SLOTS] = {0};
    for (int i = 0; rounds == 0 || i < rounds; i++) {
        uint32_t at = next(&seed) % SLOTS;
        do_free(mine[at]);
        mine[at] = next(&seed) % 3 ? do_malloc(WORK_SIZE(&seed)) : NULL;
    }
}

static UNUSED void *work_and_end(void *seed)
{
    work((uint32_t)(uintptr_t)seed, 20000);
    return NULL;
}

static UNUSED void *work_on(void *seed)
{
    pthread_barrier_wait(&ready);
    work((uint32_t)(uintptr_t)seed, 0);
    return NULL;
}

static UNUSED __attribute__((noreturn)) void wait_for_ever(void)
{
    pthread_barrier_wait(&ready);
    for (;;)
        pause();
}

static UNUSED void start(void *(*run)(void *), pthread_t *threads)
{
    pthread_barrier_init(&ready, NULL, THREADS + 1);
    for (uintptr_t i = 0; i < THREADS; i++)
        need(pthread_create(&threads[i], NULL, run, (void *)(i * 77 + 5)) == 0, "no thread");
}

/* The child dies and leaves the core; the parent ends with the status that a shell would give the child. */
static UNUSED void die_in_child(void)
{
    pid_t child = fork();
    if (child == 0) {
        SAY_IN_CHILD();
        die_by_abort();
    }
    int status = 0;
    waitpid(child, &status, 0);
    _exit(128 + WTERMSIG(status));
}

#endif
