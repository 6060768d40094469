/* Acts that the monitor records, as many as are asked for, counted by who does them.
 *
 *   offer FOLLOWED BESIDE open|socket|processes RATE SECONDS|NUMBER THREADS
 *
 * It enters the cgroup FOLLOWED, acts, and leaves it for BESIDE: all that is recorded of it in between is its acts
 * (for `processes`, that they begin and that they end). RATE: a second, of all threads; 0: as fast as it goes. Prints
 * one JSON object.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "confine.h"

#define THREADS_MAX 16
#define BATCH 32 /* acts between two looks at the clock */

enum act { OPEN, SOCKET, PROCESSES };

static enum act act;
static double rate, seconds;
static int folder;
static pthread_barrier_t start;
static uint64_t done[THREADS_MAX];

static void fail(const char *what) {
    fprintf(stderr, "offer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void one(void) {
    int fd = act == OPEN ? openat(folder, "file", O_RDONLY) : socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        fail("act");
    close(fd);
}

static void *work(void *count) {
    uint64_t n = 0;
    pthread_barrier_wait(&start);
    double begin = now(), at = begin;
    while (at - begin < seconds) {
        for (int i = 0; i < BATCH; i++)
            one();
        n += BATCH;
        at = now();
        double early = rate > 0 ? begin + n / rate - at : 0;
        if (early > 0) {
            struct timespec pause = {.tv_sec = early, .tv_nsec = (early - (time_t)early) * 1e9};
            nanosleep(&pause, NULL);
            at = now();
        }
    }
    *(uint64_t *)count = n;
    return NULL;
}

static double offer(int threads) {
    pthread_t made[THREADS_MAX];
    pthread_barrier_init(&start, NULL, threads + 1);
    rate /= threads;
    for (int i = 0; i < threads; i++)
        if ((errno = pthread_create(&made[i], NULL, work, &done[i])))
            fail("pthread_create");
    pthread_barrier_wait(&start);
    double begin = now();
    for (int i = 0; i < threads; i++)
        pthread_join(made[i], NULL);
    return now() - begin;
}

/* All alive at once, then all ended. */
static double processes(long number) {
    double begin = now();
    pid_t *made = calloc(number, sizeof(*made));
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    for (long i = 0; i < number; i++) {
        made[i] = fork();
        if (made[i] < 0)
            fail("fork");
        if (!made[i]) {
            int signal;
            sigwait(&term, &signal);
            _exit(0);
        }
    }
    done[0] = number;
    for (long i = 0; i < number; i++)
        kill(made[i], SIGTERM);
    for (long i = 0; i < number; i++)
        waitpid(made[i], NULL, 0);
    return now() - begin;
}

static int procs_of(const char *cgroup) {
    char path[4096];
    snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        fail(path);
    return fd;
}

static void enter(int procs) {
    if (write(procs, "0", 1) != 1)
        fail("cgroup.procs");
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fputs("usage: offer FOLLOWED BESIDE open|socket|processes RATE SECONDS|NUMBER THREADS\n", stderr);
        return 2;
    }
    int followed = procs_of(argv[1]), beside = procs_of(argv[2]), threads = atoi(argv[6]);
    act = !strcmp(argv[3], "open") ? OPEN : !strcmp(argv[3], "socket") ? SOCKET : PROCESSES;
    rate = atof(argv[4]);
    seconds = atof(argv[5]);
    if (threads < 1 || threads > THREADS_MAX)
        return 2;
    char name[] = "/tmp/offer-XXXXXX";
    if (!mkdtemp(name) || (folder = open(name, O_PATH | O_DIRECTORY)) < 0)
        fail(name);
    close(openat(folder, "file", O_CREAT | O_WRONLY, 0600));
    if (confine_as(argv[1]))
        fail("seccomp");
    enter(followed);
    double took = act == PROCESSES ? processes(seconds) : offer(threads);
    enter(beside);
    uint64_t all = 0;
    for (int i = 0; i < threads; i++)
        all += done[i];
    unlinkat(folder, "file", 0);
    rmdir(name);
    printf("{\"offered\": %llu, \"seconds\": %.3f}\n", (unsigned long long)all, took);
    return 0;
}
