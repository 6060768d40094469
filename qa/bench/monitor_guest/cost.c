/* What one act costs its caller: nanoseconds each, of a number of them in a row.
 *
 *   cost CGROUP execve|openat|connect|getppid NUMBER
 *   cost CGROUP run PROGRAM [ARGUMENT…]
 *
 * It enters the cgroup first. execve: a process is made, runs this file again, ends and is waited for. openat: a
 * file is opened and closed. connect: a datagram socket is connected to where a sandbox may, which sends nothing;
 * the cheapest connect there is, so that what is added to it weighs most. getppid: the control, which nobody
 * records. run: what is to be measured otherwise is started there.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "confine.h"

static void fail(const char *what) {
    fprintf(stderr, "cost: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void enter(const char *cgroup) {
    char path[4096];
    snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        fail(path);
    close(fd);
    if (confine_as(cgroup))
        fail("seccomp");
}

static void do_execve(long n) {
    char *arguments[] = {"cost", NULL};
    for (long i = 0; i < n; i++) {
        pid_t child;
        if ((errno = posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, NULL)) || waitpid(child, NULL, 0) < 0)
            fail("posix_spawn");
    }
}

static void do_openat(long n, const char *file) {
    for (long i = 0; i < n; i++) {
        int fd = openat(AT_FDCWD, file, O_RDONLY);
        if (fd < 0)
            fail(file);
        close(fd);
    }
}

static void do_connect(long n) {
    /* The one address that a sandbox may connect to; here it is the machine's own. */
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(8118)};
    inet_pton(AF_INET, "198.19.255.1", &to.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0)
        fail("socket");
    for (long i = 0; i < n; i++)
        if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
            fail("connect");
    close(fd);
}

static void do_getppid(long n) {
    for (long i = 0; i < n; i++)
        syscall(SYS_getppid);
}

int main(int argc, char **argv) {
    if (argc == 1)
        return 0; /* what execve runs */
    if (argc >= 4 && !strcmp(argv[2], "run")) {
        enter(argv[1]);
        execv(argv[3], argv + 3);
        fail(argv[3]);
    }
    if (argc != 4)
        return 2;
    long n = atol(argv[3]);
    char file[] = "/tmp/cost-XXXXXX";
    int fd = mkstemp(file);
    if (fd < 0)
        fail(file);
    close(fd);
    enter(argv[1]);
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (!strcmp(argv[2], "execve"))
        do_execve(n);
    else if (!strcmp(argv[2], "openat"))
        do_openat(n, file);
    else if (!strcmp(argv[2], "connect"))
        do_connect(n);
    else
        do_getppid(n);
    clock_gettime(CLOCK_MONOTONIC, &to);
    unlink(file);
    printf("%.1f\n", ((to.tv_sec - from.tv_sec) * 1e9 + (to.tv_nsec - from.tv_nsec)) / n);
    return 0;
}
