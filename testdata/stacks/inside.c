/*
 * A thread that a signal interrupts inside the allocator, and whose handler aborts; another thread waits outside. Prints
 *   inside <thread id> <program counter> outside <thread id>
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile pid_t outside;

static void *wait_outside(void *argument) {
    outside = gettid();
    for (;;) pause();
    return argument;
}

static void handler(int number, siginfo_t *info, void *context) {
    greg_t pc = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    Dl_info found;
    (void)number, (void)info;
    if (!dladdr((void *)pc, &found) || !strstr(found.dli_fname, "tcmalloc")) return;
    dprintf(1, "inside %d %#llx outside %d\n", gettid(), pc, outside);
    abort();
}

int main(void) {
    static void *volatile blocks[64];
    sigset_t alarm;
    pthread_t thread;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm, NULL);
    pthread_create(&thread, NULL, wait_outside, NULL);
    while (!outside) usleep(1000);
    pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);

    struct sigaction action = {.sa_flags = SA_SIGINFO, .sa_sigaction = handler};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 1000}, {0, 1000}};
    setitimer(ITIMER_REAL, &often, NULL);
    for (unsigned number = 0;; number++) {
        free(blocks[number % 64]);
        blocks[number % 64] = malloc(number % 4096);
    }
}
