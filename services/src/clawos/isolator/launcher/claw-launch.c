/* claw-launch PLAN_FD STATUS_FD CGROUP_FD
 *
 * Runs one program in one sandbox; the program's standard streams are this process's own. What happens is told
 * on STATUS_FD, a line each:
 *   refused STEP ERRNO      a part could not be set up; nothing of the program ran
 *   started LANDLOCK_ABI    the program runs, all fences up
 *   exited WAIT_STATUS      the program ended
 *   usage CAUSE CPU_US KB   the sandbox is gone; CAUSE: exit, wall, stopped
 * SIGTERM, the end of the reader of STATUS_FD or of our parent ends the sandbox.
 *
 * CGROUP_FD is the leaf the sandbox starts in. "--test-without-cgroup" in its place is for unit tests on machines
 * without cgroup v2 controllers; the service never passes it.
 */
#define _GNU_SOURCE
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NAMESPACES                                                                                          \
    (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

#define OOM_SCORE 500
#define OOM_SCORE_TEXT "500"

int report_fd = -1;

void report(const char *format, ...) {
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (length > 0 && write(report_fd, line, (size_t)length) < 0)
        _exit(1); /* nobody listens */
}

_Noreturn void refuse(const char *step) {
    report("refused %s %d\n", step, errno);
    _exit(1);
}

static void keep_only(int a, int b, int c) {
    /* Everything else above the standard streams goes, whoever leaked it. */
    int keep[] = {a, b, c};
    for (unsigned i = 0; i < 3; i++)
        for (unsigned j = i + 1; j < 3; j++)
            if (keep[j] < keep[i]) {
                int swap = keep[i];
                keep[i] = keep[j];
                keep[j] = swap;
            }
    unsigned from = 3;
    for (unsigned i = 0; i < 3; i++) {
        if (keep[i] < (int)from)
            continue;
        if (keep[i] > (int)from && syscall(SYS_close_range, from, (unsigned)keep[i] - 1, 0))
            refuse("close-range");
        from = (unsigned)keep[i] + 1;
    }
    if (syscall(SYS_close_range, from, ~0U, 0))
        refuse("close-range");
}

/* The worker: from here on only less is possible, never more. */
_Noreturn static void run_worker(const struct plan *plan) {
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < _NSIG; number++)
        signal(number, SIG_DFL);
    if (setsid() < 0 || sigprocmask(SIG_SETMASK, &none, NULL))
        refuse("session");
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
        refuse("parent-death-signal");
    /* A fresh, empty session keyring instead of the one we came with. */
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0, 0, 0) < 0)
        refuse("keyring");
    if (chdir(plan->cwd))
        refuse("cwd");
    umask(022);
    confine_limits(plan);
    if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC))
        refuse("close-range");
    confine_capabilities();
    confine_landlock(plan);
    confine_seccomp(plan);
    report("."); /* all fences are up */
    execve(plan->argv[0], plan->argv, plan->envp);
    refuse("exec");
}

/* Pid 1 of the sandbox after set-up: forwards what the worker reports, reaps, ends when the worker does; the
 * kernel then kills whatever is left in the pid namespace. */
_Noreturn static void run_init(const struct plan *plan) {
    int told[2];
    if (pipe2(told, O_CLOEXEC))
        refuse("pipe");
    pid_t worker = fork();
    if (worker < 0)
        refuse("fork");
    if (worker == 0) {
        report_fd = told[1];
        run_worker(plan);
    }
    close(told[1]);
    drop_capabilities();
    if (syscall(SYS_close_range, 0U, 2U, 0))
        refuse("close-range");
    char line[256];
    size_t length = 0;
    ssize_t got;
    while ((got = read(told[0], line + length, sizeof line - length)) > 0) /* its end: the exec, or the worker's */
        length += (size_t)got;
    if (got < 0)
        refuse("worker");
    if (length == 0) { /* killed on its way, by the memory limit for one */
        errno = ECHILD;
        refuse("worker");
    }
    size_t ready = line[0] == '.';
    if (length > ready) {
        if (write(report_fd, line + ready, length - ready) < 0)
            _exit(1);
        _exit(1);
    }
    report("started %u\n", landlock_abi());
    for (;;) {
        int status;
        pid_t ended = waitpid(-1, &status, 0);
        if (ended == worker) {
            report("exited %d\n", status);
            _exit(0);
        }
        if (ended < 0 && errno != EINTR)
            _exit(1);
    }
}

/* Where memory ends, the sandbox goes before the service, whose score we came with. Raising one's own is always
 * allowed; what is inside cannot lower it again, for its /proc is read-only. */
static void go_first_when_memory_ends(void) {
    char text[16] = "";
    int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        refuse("oom-score");
    if (strtol(text, NULL, 10) < OOM_SCORE && pwrite(fd, OOM_SCORE_TEXT, sizeof OOM_SCORE_TEXT - 1, 0) < 0)
        refuse("oom-score");
    close(fd);
}

_Noreturn static void set_up(struct plan *plan, int go) {
    go_first_when_memory_ends();
    char byte;
    if (read(go, &byte, 1) != 1) /* the launcher died or could not write the maps */
        _exit(1);
    /* Sources are opened while we are still the isolator outside; everything else is done as the sandbox's user. */
    root_pin_sources(plan);
    if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
        refuse("securebits");
    if (setresgid(plan->gid, plan->gid, plan->gid) || setresuid(plan->uid, plan->uid, plan->uid))
        refuse("ids");
    /* After the ids, for changing them clears it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        refuse("parent-death-signal");
    /* A launcher that was gone before that sends no signal, but its end of the pipe is closed. */
    struct pollfd launcher = {.fd = go};
    if (poll(&launcher, 1, 0))
        _exit(1);
    close(go);
    if (sethostname(plan->hostname, strlen(plan->hostname)))
        refuse("hostname");
    root_build(plan);
    run_init(plan);
}

static void write_map(pid_t pid, const char *file, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        refuse("id-map");
    close(fd);
}

/* Inside and outside the same id, and only that one: file owners and D-Bus credentials stay honest. */
static void write_maps(pid_t pid, const struct plan *plan) {
    char line[64];
    snprintf(line, sizeof line, "%u %u 1\n", plan->uid, plan->uid);
    write_map(pid, "uid_map", line);
    write_map(pid, "setgroups", "deny");
    snprintf(line, sizeof line, "%u %u 1\n", plan->gid, plan->gid);
    write_map(pid, "gid_map", line);
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Wait for the sandbox's end; bring it about at the deadline, on SIGTERM, or when nobody reads our reports. */
static const char *supervise(int pidfd, int signals, int64_t deadline_ms) {
    const char *cause = "exit";
    struct pollfd fds[] = {{pidfd, POLLIN, 0}, {signals, POLLIN, 0}, {report_fd, 0, 0}};
    for (;;) {
        int64_t left = deadline_ms - now_ms();
        int ready = poll(fds, 3, cause[0] != 'e' ? -1 : left > 0 ? (int)left : 0);
        if (ready < 0 && errno != EINTR)
            refuse("poll");
        if (fds[0].revents)
            return cause;
        if (ready == 0)
            cause = "wall";
        else if (fds[1].revents || fds[2].revents)
            cause = "stopped";
        if (cause[0] != 'e') {
            if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) && errno != ESRCH)
                refuse("kill");
            fds[1].fd = fds[2].fd = -1;
        }
    }
}

static int descriptor(const char *text) {
    char *end;
    errno = 0;
    long fd = strtol(text, &end, 10);
    if (errno || *end || end == text || fd < 3 || fd > 1 << 20 || fcntl((int)fd, F_GETFD) < 0) {
        fprintf(stderr, "claw-launch: '%s' is not an open descriptor above 2\n", text);
        exit(2);
    }
    return (int)fd;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fputs("usage: claw-launch PLAN_FD STATUS_FD CGROUP_FD\n", stderr);
        return 2;
    }
    int plan_fd = descriptor(argv[1]);
    report_fd = descriptor(argv[2]);
    int cgroup = strcmp(argv[3], "--test-without-cgroup") ? descriptor(argv[3]) : -1;
    signal(SIGPIPE, SIG_IGN);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
        refuse("parent-death-signal");
    keep_only(plan_fd, report_fd, cgroup);
    fcntl(report_fd, F_SETFD, FD_CLOEXEC);
    static struct plan plan;
    plan_read(&plan, plan_fd);
    close(plan_fd);
    /* Before the user namespace, where the host's groups cannot be named any more. */
    if (setgroups(plan.group_count, plan.groups))
        refuse("groups");

    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    int signals = signalfd(-1, &stop, SFD_CLOEXEC), go[2], pidfd = -1;
    if (signals < 0 || pipe2(go, O_CLOEXEC))
        refuse("pipe");

    int64_t deadline_ms = now_ms() + plan.wall_ms;
    struct clone_args arguments = {
        .flags = NAMESPACES | CLONE_PIDFD | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
        .exit_signal = SIGCHLD,
        .pidfd = (uintptr_t)&pidfd,
        .cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
    };
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid < 0)
        refuse("namespaces");
    if (pid == 0) {
        close(go[1]);
        close(signals);
        if (cgroup >= 0)
            close(cgroup);
        set_up(&plan, go[0]);
    }
    close(go[0]);
    if (syscall(SYS_close_range, 0U, 2U, 0)) /* the streams belong to the worker alone */
        refuse("close-range");
    write_maps((pid_t)pid, &plan);
    drop_capabilities(); /* we own the user namespace: that is enough to kill what is in it */
    if (write(go[1], "", 1) != 1)
        refuse("go");
    const char *cause = supervise(pidfd, signals, deadline_ms);
    struct rusage usage;
    if (wait4((pid_t)pid, NULL, __WALL, &usage) != pid)
        refuse("wait");
    long long cpu_us = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000LL + usage.ru_utime.tv_usec +
                       usage.ru_stime.tv_usec;
    report("usage %s %lld %ld\n", cause, cpu_us, usage.ru_maxrss);
    return 0;
}
