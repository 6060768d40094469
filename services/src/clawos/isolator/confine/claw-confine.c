/* claw-confine: what a sandbox needs and bubblewrap does not do, before it and inside it.
 *
 *   claw-confine outside PLAN_FD STATUS_FD CGROUP_FD HOME BWRAP ARGUMENT...
 *     Enters the cgroup, becomes the sandbox's user in a user, a mount and a network namespace, puts the directory
 *     HOME ("-": none) on STAGE, and becomes bubblewrap.
 *   claw-confine inside PLAN_FD STATUS_FD STDIN_FD STDOUT_FD STDERR_FD
 *     Bubblewrap's program: pid 1 of the sandbox. Adds what the mounts lack, starts the confined program, reaps.
 *
 * Both tell on STATUS_FD, a line each, what claw-launch tells: refused, started, exited, usage.
 * "--test-without-cgroup" in place of CGROUP_FD is for unit tests on machines without cgroup v2 controllers.
 */
#define _GNU_SOURCE
#include "../launcher/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine.h"

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#define OOM_SCORE 500
#define OOM_SCORE_TEXT "500"
#define PROGRAM "claw-confine"

int report_fd = -1;

_Noreturn void refuse(const char *step) {
    report("refused %s %d\n", step, errno);
    _exit(1);
}

static int descriptor(const char *text) {
    char *end;
    errno = 0;
    long fd = strtol(text, &end, 10);
    if (errno || *end || end == text || fd < 3 || fd > 1 << 20 || fcntl((int)fd, F_GETFD) < 0) {
        fprintf(stderr, PROGRAM ": '%s' is not an open descriptor above 2\n", text);
        exit(2);
    }
    return (int)fd;
}

/* Sealed: what is checked is what is used. */
static void read_plan(struct plan *plan, int fd) {
    struct stat found;
    const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    errno = EBADMSG;
    if (fcntl(fd, F_GET_SEALS) != seals || fstat(fd, &found) || !found.st_size)
        refuse("plan");
    uint8_t *bytes = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED || plan_parse(plan, bytes, (size_t)found.st_size))
        refuse("plan");
}

static void write_text(int directory, const char *file, const char *text, const char *step) {
    int fd = openat(directory, file, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        refuse(step);
    close(fd);
}

/* Where memory ends, the sandbox goes before the service. Raising one's own is always allowed. */
static void go_first_when_memory_ends(void) {
    char text[16] = "";
    int fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        refuse("oom-score");
    close(fd);
    if (strtol(text, NULL, 10) < OOM_SCORE)
        write_text(AT_FDCWD, "/proc/self/oom_score_adj", OOM_SCORE_TEXT, "oom-score");
}

/* From here on this process is who the call is outside, without a capability. */
static void become_user(const struct plan *plan) {
    if (setgroups(plan->group_count, plan->groups))
        refuse("groups");
    if (setresgid(plan->gid, plan->gid, plan->gid) || setresuid(plan->host_uid, plan->host_uid, plan->host_uid))
        refuse("ids");
    keep_capabilities(0);
    /* After the ids, for changing them clears both: the end of the isolator ends us, and our /proc is ours. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
        refuse("parent-death-signal");
}

/* Without a capability a user may map himself, and nobody else: bubblewrap's namespaces, made below this one, have no
 * other to map. The network namespace is made here, for bubblewrap would bring its loopback up. */
static void enter_namespaces(const struct plan *plan) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET))
        refuse("namespaces");
    char line[64];
    write_text(AT_FDCWD, "/proc/self/setgroups", "deny", "id-map");
    snprintf(line, sizeof line, "%u %u 1\n", plan->uid, plan->host_uid);
    write_text(AT_FDCWD, "/proc/self/uid_map", line, "id-map");
    snprintf(line, sizeof line, "%u %u 1\n", plan->gid, plan->gid);
    write_text(AT_FDCWD, "/proc/self/gid_map", line, "id-map");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        refuse("propagation");
}

_Noreturn static void outside(char **argv) {
    int plan_fd = descriptor(argv[0]);
    report_fd = descriptor(argv[1]);
    static struct plan plan;
    read_plan(&plan, plan_fd);
    if (strcmp(argv[2], "--test-without-cgroup")) {
        int cgroup = descriptor(argv[2]);
        write_text(cgroup, "cgroup.procs", "0", "cgroup");
        close(cgroup);
    }
    go_first_when_memory_ends();
    /* The home's parent is closed to the sandbox's user. Where a process stands goes with it into a new mount
     * namespace: so the home is entered as the isolator and put in reach from within. */
    int has_home = strcmp(argv[3], "-") != 0;
    int home = open(has_home ? argv[3] : "/", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (home < 0 || fchdir(home))
        refuse("home");
    close(home);
    become_user(&plan);
    enter_namespaces(&plan);
    if (has_home && mount(".", STAGE, NULL, MS_BIND | MS_REC, NULL))
        refuse("home");
    if (chdir("/"))
        refuse("root");
    keep_capabilities(0); /* bubblewrap makes its own user namespace, and refuses to start with any */
    execve(argv[4], argv + 4, (char *[]){NULL});
    refuse("bubblewrap");
}

static uint64_t attributes_of(uint32_t flags) {
    return MOUNT_ATTR_NOSUID | (flags & MOUNT_WRITE ? 0 : MOUNT_ATTR_RDONLY) |
           (flags & MOUNT_EXEC ? 0 : MOUNT_ATTR_NOEXEC) | (flags & MOUNT_DEV ? 0 : MOUNT_ATTR_NODEV);
}

static void add_attributes(const char *path, unsigned how, uint64_t attributes) {
    struct mount_attr wanted = {.attr_set = attributes, .propagation = MS_PRIVATE};
    if (syscall(SYS_mount_setattr, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | how, &wanted, sizeof wanted))
        refuse("mount-attributes");
}

/* Bubblewrap knows neither noexec nor a limit on inodes. One inode for each 4 KiB, as claw-launch has it. */
static void finish_mounts(const struct plan *plan) {
    if (unshare(CLONE_NEWNS)) /* the one we are in belongs to the user namespace above ours */
        refuse("namespaces");
    add_attributes("/", 0, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    for (size_t i = 0; i < plan->operation_count; i++) {
        const struct operation *operation = &plan->operations[i];
        char options[96];
        switch (operation->kind) {
        case KIND_BIND:
            add_attributes(operation->path, AT_RECURSIVE, attributes_of(operation->flags));
            break;
        case KIND_PROC:
            add_attributes(operation->path, AT_RECURSIVE, attributes_of(0));
            break;
        case KIND_TMPFS:
            snprintf(options, sizeof options, "mode=1777,size=%llu,nr_inodes=%llu",
                     (unsigned long long)operation->number, (unsigned long long)(operation->number / 4096 + 64));
            if (mount("tmpfs", operation->path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options))
                refuse("tmpfs");
            add_attributes(operation->path, 0, attributes_of(operation->flags));
            break;
        default:
            break;
        }
    }
}

/* The worker: from here on only less is possible, never more. */
_Noreturn static void run_worker(const struct plan *plan, const int streams[3]) {
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < _NSIG; number++)
        signal(number, SIG_DFL);
    if (setsid() < 0 || sigprocmask(SIG_SETMASK, &none, NULL))
        refuse("session");
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
        refuse("parent-death-signal");
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0, 0, 0) < 0)
        refuse("keyring");
    for (int i = 0; i < 3; i++)
        if (dup2(streams[i], i) != i)
            refuse("streams");
    if (chdir(plan->cwd))
        refuse("cwd");
    umask(022);
    confine_limits(plan);
    if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC))
        refuse("close-range");
    drop_bounding_set();
    confine_privileges();
    confine_landlock(plan);
    confine_set_id();
    confine_seccomp(plan);
    execve(plan->argv[0], plan->argv, plan->envp);
    refuse("exec");
}

static void keep_only(int a, int b) {
    unsigned low = (unsigned)(a < b ? a : b), high = (unsigned)(a < b ? b : a);
    if ((low > 0 && syscall(SYS_close_range, 0U, low - 1, 0)) ||
        (high - low > 1 && syscall(SYS_close_range, low + 1, high - 1, 0)) ||
        syscall(SYS_close_range, high + 1, ~0U, 0))
        refuse("close-range");
}

_Noreturn static void inside(char **argv) {
    int plan_fd = descriptor(argv[0]);
    report_fd = descriptor(argv[1]);
    const int streams[] = {descriptor(argv[2]), descriptor(argv[3]), descriptor(argv[4])};
    static struct plan plan;
    read_plan(&plan, plan_fd);
    if (getpid() != 1) {
        errno = ESRCH;
        refuse("pid-namespace");
    }
    prctl(PR_SET_NAME, PROGRAM, 0, 0, 0); /* started by descriptor, it would be called by a number */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        refuse("parent-death-signal");
    finish_mounts(&plan);
    int told[2];
    if (pipe2(told, O_CLOEXEC))
        refuse("pipe");
    pid_t worker = fork();
    if (worker < 0)
        refuse("fork");
    if (worker == 0) {
        report_fd = told[1];
        run_worker(&plan, streams);
    }
    keep_capabilities(0);
    keep_only(told[0], report_fd);
    char line[256];
    ssize_t got = read(told[0], line, sizeof line); /* end of file: the exec went through */
    if (got != 0) {
        if (got > 0 && write(report_fd, line, (size_t)got) < 0)
            _exit(1);
        _exit(1);
    }
    report("started %u\n", landlock_abi());
    for (;;) {
        int status;
        pid_t ended = waitpid(-1, &status, 0);
        if (ended < 0 && errno != EINTR)
            _exit(1);
        if (ended != worker)
            continue;
        struct rusage usage;
        getrusage(RUSAGE_CHILDREN, &usage);
        long long cpu_us = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000LL + usage.ru_utime.tv_usec +
                           usage.ru_stime.tv_usec;
        report("exited %d\nusage exit %lld %ld\n", status, cpu_us, usage.ru_maxrss);
        _exit(0);
    }
}

int main(int argc, char **argv) {
    if (argc >= 7 && !strcmp(argv[1], "outside"))
        outside(argv + 2);
    if (argc == 7 && !strcmp(argv[1], "inside"))
        inside(argv + 2);
    fputs("usage: " PROGRAM " outside PLAN_FD STATUS_FD CGROUP_FD HOME BWRAP ARGUMENT...\n"
          "       " PROGRAM " inside PLAN_FD STATUS_FD STDIN_FD STDOUT_FD STDERR_FD\n",
          stderr);
    return 2;
}
