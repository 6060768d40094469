/* claw-launch CONTROL_FD UID_MAP GID_MAP INIT_UID [--test-without-cgroup]
 *
 * Runs sandboxes. A request is a message on CONTROL_FD, a SOCK_SEQPACKET socket, with descriptors:
 *   status                                           a network namespace and a route socket in it come back
 *   plan status                                      make the plan's root; it comes back over status
 *   plan status stdin stdout stderr root cgroup      run the plan; cgroup is the leaf that it starts in
 *   … network                                        the same in a network namespace that came back, for a plan that
 *                                                    connects; each is for one sandbox
 * The plan is a sealed memfd, status a socket. What happens is told there:
 *   refused STEP ERRNO      a part could not be set up; nothing of the program ran
 *   started LANDLOCK_ABI    the program runs, all fences up
 *   exited WAIT_STATUS      the program ended
 *   usage CAUSE CPU_US KB   the sandbox is gone; CAUSE: exit, wall, stopped
 * On CONTROL_FD we say nothing but "refused STEP ERRNO", and then end.
 * The end of its reader, or anything sent, ends the sandbox; the end of our parent ends all. Without CONTROL_FD's
 * other end we end with the last of them.
 *
 * UID_MAP and GID_MAP are the ids that sandboxes may have outside, as /proc/PID/uid_map takes them; INIT_UID is who
 * their first processes are. "--test-without-cgroup" is for unit tests on machines without cgroup v2 controllers; the
 * service never passes it.
 */
#define _GNU_SOURCE
#include "launch.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define CALLS_MAX 256
#define BUILD_MS 5000   /* a root's sources are our own files */
#define POOL_BYTES 4096 /* of queued messages: about ten network namespaces */
#define OOM_SCORE "500"
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
#define IN_SPAWNER (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET)
#define IN_SANDBOX (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)
#define CAPABILITIES (1 << CAP_SETUID | 1 << CAP_SETGID | 1 << CAP_KILL | 1 << CAP_SYS_CHROOT | 1 << CAP_SYS_ADMIN)

enum { PLAN, STATUS, STREAMS, ROOT = 5, CGROUP, NETWORK, DESCRIPTORS };
enum { CONTROL = 3, GO = 4 };

static struct call {
    pid_t pid;
    int pidfd, status;
    int64_t deadline_ms;
    const char *cause;
} calls[CALLS_MAX];
static unsigned call_count;
static int proc, pool = -1, own_network, needs_cgroup, goes_first;
static pid_t filler;
static uid_t init_uid;

int report_fd = 2;
volatile int has_refused;

static int decline(const char *step) {
    report("refused %s %d\n", step, errno);
    return -1;
}

_Noreturn void refuse(const char *step) {
    has_refused = 1;
    decline(step);
    _exit(1);
}

long clone_process(uint64_t flags, int *pidfd, int cgroup) {
    struct clone_args arguments = {
        .flags = flags | (pidfd ? CLONE_PIDFD : 0) | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
        .exit_signal = SIGCHLD,
        .pidfd = (uintptr_t)pidfd,
        .cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
    };
    return syscall(SYS_clone3, &arguments, sizeof arguments);
}

int write_at(int directory, const char *path, const char *text) {
    int fd = openat(directory, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t length = (ssize_t)strlen(text), written = write(fd, text, (size_t)length);
    close(fd);
    return written == length ? 0 : -1;
}

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
};

int send_descriptors(int socket, const int *descriptors, size_t count) {
    union control control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec word = {(char[]){'\n'}, 1};
    struct msghdr message = {.msg_iov = &word, .msg_iovlen = 1, .msg_control = &control};
    control.header.cmsg_len = (socklen_t)CMSG_LEN(count * sizeof *descriptors);
    message.msg_controllen = (socklen_t)CMSG_SPACE(count * sizeof *descriptors);
    memcpy(CMSG_DATA(&control.header), descriptors, count * sizeof *descriptors);
    return sendmsg(socket, &message, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

/* How many came; -1 at the end. errno is 0, or says what went wrong. What does not fit, the kernel closes. */
static int receive_descriptors(int socket, int *descriptors) {
    union control control = {0};
    char byte;
    struct iovec word = {&byte, 1};
    struct msghdr message = {.msg_iov = &word, .msg_iovlen = 1, .msg_control = &control};
    message.msg_controllen = sizeof control;
    errno = 0;
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) <= 0)
        return -1;
    errno = message.msg_flags & MSG_CTRUNC ? EMFILE : 0;
    if (message.msg_controllen < CMSG_LEN(0) || control.header.cmsg_type != SCM_RIGHTS)
        return 0;
    size_t size = control.header.cmsg_len - CMSG_LEN(0);
    memcpy(descriptors, CMSG_DATA(&control.header), size);
    return (int)(size / sizeof(int));
}

/* In a worker that keeps our memory: what it need not know of others. */
void forget_calls(void) {
    memset(calls, 0, sizeof calls);
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Make network namespaces ahead, each for one sandbox: of all parts it takes longest. The socket holds a few. A filler
 * that cannot go on ends with the reason. */
static int open_pool(void) {
    int pair[2], bytes = POOL_BYTES, network;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -1;
    filler = setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) ? -1 : (pid_t)clone_process(0, NULL, -1);
    if (filler == 0) {
        /* It may be started again beside calls, whose descriptors are not its to keep. */
        if (dup2(pair[1], 0) < 0 || dup2(proc, 1) < 0 || syscall(SYS_close_range, 3U, ~0U, 0))
            _exit(errno);
        while (!unshare(CLONE_NEWNET) && (network = openat(1, "self/ns/net", O_RDONLY | O_CLOEXEC)) >= 0 &&
               !send_descriptors(0, &network, 1))
            close(network);
        _exit(errno);
    }
    int error = errno;
    close(pair[1]);
    if (filler < 0)
        close(pair[0]);
    else
        pool = pair[0];
    errno = error;
    return filler < 0 ? -1 : 0;
}

/* One of those made ahead, or -1. */
static int take_network(void) {
    int given[DESCRIPTORS], status, has_failed = 0;
    for (;;) {
        if (pool < 0 && open_pool())
            return -1;
        if (receive_descriptors(pool, given) == 1)
            return given[0];
        if (errno)
            return -1;
        /* The filler has ended; once is no reason to refuse a call. */
        close(pool);
        pool = -1;
        if (waitpid(filler, &status, 0) != filler || has_failed++) {
            errno = WIFEXITED(status) ? WEXITSTATUS(status) : ECHILD;
            return -1;
        }
    }
}

static int write_ids(pid_t pid, const struct plan *plan) {
    char path[16], uids[64], gids[32];
    snprintf(path, sizeof path, "%d", (int)pid);
    snprintf(uids, sizeof uids, "%u %u 1\n%u %u 1\n", plan->uid, plan->host_uid, init_uid, init_uid);
    snprintf(gids, sizeof gids, "%u %u 1\n", plan->gid, plan->gid);
    int process = openat(proc, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (process < 0)
        return -1;
    /* Where memory ends, the sandbox goes before the service, whose score we came with. What is inside cannot lower
     * it again, for its /proc is read-only. */
    int failed = (goes_first && write_at(process, "oom_score_adj", OOM_SCORE)) ||
                 write_at(process, "uid_map", uids) || write_at(process, "setgroups", "deny") ||
                 write_at(process, "gid_map", gids);
    close(process);
    return failed;
}

/* A network namespace to be linked to something outside, and the socket by which whoever may configures its end: that
 * one needs not enter it, and we need no capability for it. */
static void lend_network(void) {
    int lent[] = {take_network(), -1};
    if (lent[0] < 0 || setns(lent[0], CLONE_NEWNET) ||
        (lent[1] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)) < 0 ||
        send_descriptors(report_fd, lent, 2))
        decline("network");
    if (setns(own_network, CLONE_NEWNET))
        refuse("network");
    for (int i = 0; i < 2; i++)
        if (lent[i] >= 0)
            close(lent[i]);
}

/* From a plan to a process that goes on by itself; 0, or -1 after having told why not. */
static int start(struct call *call, const struct plan *plan, const int *given, int cgroup, int linked) {
    int go[2];
    if (setns(given[ROOT], CLONE_NEWNS))
        return decline("root");
    /* Before the sandbox's user namespace, where the groups cannot be named any more. */
    if (setgroups(plan->group_count, plan->groups))
        return decline("groups");
    if (pipe2(go, O_CLOEXEC))
        return decline("pipe");
    int network = linked < 0 ? take_network() : linked, is_there = network >= 0 && !setns(network, CLONE_NEWNET);
    call->pid = is_there ? (pid_t)clone_process(IN_SANDBOX, &call->pidfd, cgroup) : -1;
    if (call->pid == 0)
        run_init(plan, given + STREAMS, go[0], init_uid);
    int failed = call->pid < 0 ? decline(is_there ? "namespaces" : "network") : 0;
    if (is_there && setns(own_network, CLONE_NEWNET))
        refuse("network");
    if (network >= 0 && network != linked)
        close(network);
    if (!failed && (write_ids(call->pid, plan) || write(go[1], "", 1) != 1))
        failed = decline("id-map");
    close(go[0]);
    close(go[1]); /* who waits for the word in vain ends */
    if (failed && call->pid > 0) {
        kill(call->pid, SIGKILL);
        waitpid(call->pid, NULL, 0);
        close(call->pidfd);
    }
    return failed;
}

static int start_builder(struct call *call, const struct plan *plan) {
    call->pid = (pid_t)clone_process(0, &call->pidfd, -1);
    if (call->pid == 0)
        root_build(plan, proc);
    return call->pid < 0 ? decline("root") : 0;
}

/* A request: all its descriptors are ours to close, but for the status of one that goes on. */
static void serve(const int *given, int count) {
    static struct plan plan;
    struct stat found = {0};
    uint8_t *bytes = MAP_FAILED;
    struct call *call = &calls[call_count];
    int is_build = count == STREAMS, is_whole = !errno, goes_on = 0, linked = CGROUP + needs_cgroup;
    int is_lend = count == STATUS && is_whole;
    report_fd = count > STATUS ? given[STATUS] : is_lend ? given[0] : -1;
    errno = is_whole ? EBADMSG : EMFILE;
    /* Sealed: what is checked is what is used. */
    if (count > STATUS && fcntl(given[PLAN], F_GET_SEALS) == SEALS && !fstat(given[PLAN], &found) && found.st_size)
        bytes = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_PRIVATE, given[PLAN], 0);
    if (is_lend) {
        lend_network();
    } else if (!is_whole || call_count == CALLS_MAX || (!is_build && count != linked && count != linked + 1)) {
        decline("request");
    } else if (bytes == MAP_FAILED || plan_parse(&plan, bytes, (size_t)found.st_size)) {
        decline("plan");
    } else if (!is_build && count != linked + (plan.connect_port != 0)) {
        decline("request"); /* where a plan connects it needs a way, and else it has none */
    } else {
        int64_t limit_ms = is_build ? BUILD_MS : plan.wall_ms;
        *call = (struct call){.status = given[STATUS], .deadline_ms = now_ms() + limit_ms};
        goes_on = !(is_build ? start_builder(call, &plan)
                             : start(call, &plan, given, needs_cgroup ? given[CGROUP] : -1,
                                     plan.connect_port ? given[linked] : -1));
    }
    if (bytes != MAP_FAILED)
        munmap(bytes, (size_t)found.st_size);
    call_count += (unsigned)goes_on;
    for (int i = 0; i < count; i++)
        if (i != STATUS || !goes_on)
            close(given[i]);
}

/* Bring a call's end about, at the deadline or when nobody reads its reports; tell it once nothing is left. */
static void attend(struct call *call, int has_ended, int is_stopped) {
    struct rusage usage;
    if (!call->cause && !has_ended) {
        call->cause = is_stopped ? "stopped" : now_ms() >= call->deadline_ms ? "wall" : NULL;
        if (call->cause && syscall(SYS_pidfd_send_signal, call->pidfd, SIGKILL, NULL, 0) && errno != ESRCH)
            refuse("kill");
    }
    if (!has_ended || wait4(call->pid, NULL, 0, &usage) != call->pid)
        return;
    long long cpu_us = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000LL + usage.ru_utime.tv_usec +
                       usage.ru_stime.tv_usec;
    report_fd = call->status;
    report("usage %s %lld %ld\n", call->cause ? call->cause : "exit", cpu_us, usage.ru_maxrss);
    close(call->status);
    close(call->pidfd);
    *call = calls[--call_count];
}

static int wait_ms(void) {
    int64_t next = INT64_MAX, left;
    for (struct call *call = calls; call < calls + call_count; call++)
        if (!call->cause && call->deadline_ms < next)
            next = call->deadline_ms;
    left = next - now_ms();
    return next == INT64_MAX ? -1 : left > 0 ? (int)left : 0;
}

/* Pid 1 of all sandboxes and owner of the user namespace they are made in. It runs nothing of a program. */
_Noreturn static void run_spawner(void) {
    char score[16] = "";
    int control;
    /* Everything else goes, whoever leaked it. */
    if (syscall(SYS_close_range, CONTROL + 1U, ~0U, 0))
        refuse("close-range");
    proc = root_open();
    own_network = openat(proc, "self/ns/net", O_RDONLY | O_CLOEXEC);
    int own_score = openat(proc, "self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    if (own_network < 0 || own_score < 0 || read(own_score, score, sizeof score - 1) < 0)
        refuse("proc");
    goes_first = strtol(score, NULL, 10) < strtol(OOM_SCORE, NULL, 10);
    keep_capabilities(CAPABILITIES);
    if (open_pool())
        refuse("pool");
    for (control = CONTROL; control >= 0 || call_count;) {
        report_fd = CONTROL; /* what is of no one call */
        struct pollfd fds[1 + 2 * CALLS_MAX] = {{control, POLLIN, 0}};
        for (unsigned i = 0; i < call_count; i++) {
            fds[1 + 2 * i] = (struct pollfd){calls[i].pidfd, POLLIN, 0};
            fds[2 + 2 * i] = (struct pollfd){calls[i].cause ? -1 : calls[i].status, POLLIN, 0};
        }
        if (poll(fds, 1 + 2 * call_count, wait_ms()) < 0 && errno != EINTR)
            refuse("poll");
        for (unsigned i = call_count; i-- > 0;) /* backwards, for the last takes the place of one that ended */
            attend(&calls[i], fds[1 + 2 * i].revents, fds[2 + 2 * i].revents);
        if (fds[0].revents) {
            int given[DESCRIPTORS], count = receive_descriptors(control, given);
            if (count < 0 && errno)
                refuse("request");
            else if (count < 0)
                control = -1;
            else
                serve(given, count);
        }
    }
    _exit(0);
}

int launch(int argc, char **argv) {
    int go[2], status;
    char byte, path[32];
    needs_cgroup = argc != 6 || strcmp(argv[5], "--test-without-cgroup");
    if (argc != (needs_cgroup ? 5 : 6) || atoi(argv[1]) < 3 || !(init_uid = (uid_t)atoi(argv[4])) ||
        dup2(atoi(argv[1]), CONTROL) < 0) {
        fputs("usage: claw-launch CONTROL_FD UID_MAP GID_MAP INIT_UID\n", stderr);
        return 2;
    }
    report_fd = CONTROL;
    for (int signal_number = 1; signal_number < NSIG; signal_number++)
        signal(signal_number, signal_number == SIGPIPE ? SIG_IGN : SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    umask(0); /* what a plan says is what a root has */
    if (sigprocmask(SIG_SETMASK, &none, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || pipe2(go, O_CLOEXEC))
        refuse("process");
    pid_t spawner = (pid_t)clone_process(IN_SPAWNER, NULL, -1);
    if (spawner < 0)
        refuse("namespaces");
    if (spawner == 0) {
        struct pollfd launcher = {go[0], 0, 0};
        close(go[1]);
        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
            refuse("process");
        /* Should it have ended before we asked for that signal, it has hung up. */
        if (read(go[0], &byte, 1) != 1 || poll(&launcher, 1, 0))
            _exit(1);
        run_spawner();
    }
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/proc/%d/%cid_map", (int)spawner, "ug"[i]);
        if (write_at(AT_FDCWD, path, argv[2 + i]))
            refuse("id-map");
    }
    keep_capabilities(0);
    if (write(go[1], "", 1) != 1 || dup2(go[1], GO) < 0 || syscall(SYS_close_range, GO + 1U, ~0U, 0) ||
        waitpid(spawner, &status, 0) != spawner)
        refuse("process");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
