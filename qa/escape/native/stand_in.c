/* Preloaded into stress-ng inside the sandbox: it gives up where it can neither drop capabilities nor set an alarm,
 * before it has tried anything. There are none to drop; timers, which the filter allows, do for the alarms. */
#include <linux/capability.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int capset(cap_user_header_t header, const cap_user_data_t data) {
    (void)header, (void)data;
    return 0;
}

int setitimer(__itimer_which_t which, const struct itimerval *new, struct itimerval *old) {
    static timer_t timer;
    static pid_t owner; /* a child has none of its parent's timers */
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = which == ITIMER_REAL ? SIGALRM : SIGPROF};
    struct itimerspec when = {{new->it_interval.tv_sec, new->it_interval.tv_usec * 1000},
                              {new->it_value.tv_sec, new->it_value.tv_usec * 1000}};
    if (old)
        *old = (struct itimerval){0};
    if (owner != getpid() && timer_create(CLOCK_MONOTONIC, &event, &timer))
        return -1;
    owner = getpid();
    return timer_settime(timer, 0, &when, NULL);
}

unsigned alarm(unsigned seconds) {
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_sec = seconds}, NULL);
    return 0;
}
