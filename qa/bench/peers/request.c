#define _GNU_SOURCE
#include "request.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DESCRIPTORS 7
#define PLANS_MAX 8
#define WORKERS_MAX 4

extern char **environ;

static int control = -1, null_fd, workers;
static pid_t worker_pids[WORKERS_MAX]; /* spawner and filler, whose work is the calls' too */
static struct {
    const char *file;
    int root;
} roots[PLANS_MAX];

_Noreturn static void fail(const char *what) {
    fprintf(stderr, "spawner: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void find_workers(pid_t parent) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    FILE *children = fopen(path, "re");
    int pid;
    while (children && workers < WORKERS_MAX && fscanf(children, "%d", &pid) == 1) {
        worker_pids[workers++] = pid;
        find_workers(pid);
    }
    if (children)
        fclose(children);
}

static void start(char **words, int has_leaf) {
    int pair[2];
    char number[16];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) || fcntl(pair[1], F_SETFD, 0))
        fail("socketpair");
    snprintf(number, sizeof number, "%d", pair[1]);
    char *argv[] = {words[0], number, words[1], words[2], words[3], has_leaf ? NULL : "--test-without-cgroup", NULL};
    pid_t pid;
    errno = posix_spawn(&pid, argv[0], NULL, NULL, argv, environ);
    if (errno)
        fail(argv[0]);
    close(pair[1]);
    control = pair[0];
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int sealed(const char *path) {
    int from = open(path, O_RDONLY | O_CLOEXEC), fd = memfd_create("plan", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    if (from < 0 || fd < 0 || sendfile(fd, from, NULL, 1 << 24) <= 0)
        fail(path);
    close(from);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
        fail(path);
    return fd;
}

/* Send a request whose second descriptor is its status; answers our end of that. */
static int ask(int *fds, size_t count) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
    } space = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec word = {(char[]){0}, 1};
    struct msghdr message = {.msg_iov = &word, .msg_iovlen = 1, .msg_control = &space};
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        fail("socketpair");
    fds[1] = pair[1];
    space.header.cmsg_len = (socklen_t)CMSG_LEN(count * sizeof(int));
    message.msg_controllen = (socklen_t)CMSG_SPACE(count * sizeof(int));
    memcpy(CMSG_DATA(&space.header), fds, count * sizeof(int));
    if (sendmsg(control, &message, MSG_NOSIGNAL) != 1)
        fail("request");
    close(pair[1]);
    return pair[0];
}

static int root_of(const char *file) {
    int at = 0;
    while (at < PLANS_MAX - 1 && roots[at].file && strcmp(roots[at].file, file))
        at++;
    if (roots[at].file)
        return roots[at].root;
    int fds[] = {sealed(file), -1}, status = ask(fds, 2);
    char space[CMSG_SPACE(sizeof(int))], said[256];
    struct iovec word = {said, sizeof said};
    struct msghdr message = {.msg_iov = &word, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    ssize_t length = recvmsg(status, &message, MSG_CMSG_CLOEXEC);
    if (length <= 0 || message.msg_controllen < CMSG_LEN(sizeof(int))) {
        fprintf(stderr, "spawner: no root: %.*s", length > 0 ? (int)length : 0, said);
        exit(1);
    }
    roots[at].file = file;
    memcpy(&roots[at].root, CMSG_DATA((struct cmsghdr *)(void *)space), sizeof(int));
    close(status);
    close(fds[0]);
    return roots[at].root;
}

static long long workers_cpu_us(void) {
    long long sum = 0;
    for (int i = 0; i < workers; i++) {
        clockid_t clock;
        struct timespec t;
        if (!clock_getcpuclockid(worker_pids[i], &clock) && !clock_gettime(clock, &t))
            sum += t.tv_sec * 1000000LL + t.tv_nsec / 1000;
    }
    return sum;
}

int request(char **words, int leaf, const char *output, long long *cpu_us) {
    if (control < 0)
        start(words, leaf >= 0);
    int root = root_of(words[4]), wait_status = -1, out = null_fd;
    if (!workers)
        find_workers(getpid());
    if (output && (out = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
        fail(output);
    long long before = workers_cpu_us();
    int fds[DESCRIPTORS] = {sealed(words[4]), -1, null_fd, out, out, root, leaf};
    int status = ask(fds, leaf >= 0 ? DESCRIPTORS : DESCRIPTORS - 1);
    close(fds[0]);
    if (out != null_fd)
        close(out);
    char report[4096];
    size_t length = 0;
    ssize_t got;
    while ((got = read(status, report + length, sizeof report - 1 - length)) > 0)
        length += (size_t)got;
    close(status);
    report[length] = 0;
    char *exited = strstr(report, "exited "), *usage = strstr(report, "usage ");
    if (exited)
        wait_status = atoi(exited + strlen("exited "));
    *cpu_us = workers_cpu_us() - before;
    if (usage && (usage = strchr(usage + strlen("usage "), ' ')))
        *cpu_us += atoll(usage);
    return wait_status;
}
