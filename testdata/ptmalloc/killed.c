/* Healthy heaps of programs that die in the middle of malloc or free of a signal that is a fault's as a rule.
 * Another process sends it. */
#include "ptmalloc.h"
#include "busy.h"
#include <sys/prctl.h>

static void scene(void)
{
    say("HEALTHY");
    say("DIES signal=SIGSEGV");
    pid_t self = getpid();
    if (fork() == 0) {
        prctl(PR_SET_DUMPABLE, 0);
        usleep(150000);
        kill(self, SIGSEGV);
        _exit(0);
    }
    work(7, 0);
}
