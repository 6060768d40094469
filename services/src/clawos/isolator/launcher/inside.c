/* Inside a sandbox: its init, and the worker that becomes the program. */
#define _GNU_SOURCE
#include "launch.h"

#include <linux/close_range.h>
#include <linux/keyctl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { STATUS = 3, GO = 4 };

/* The worker shares init's memory until its exec, and says here that all fences are up. */
static volatile int is_confined;

/* From here on only less is possible, never more. */
_Noreturn static void run_worker(const struct plan *plan) {
    signal(SIGPIPE, SIG_DFL);
    if (setsid() < 0)
        refuse("session");
    if (setresgid(plan->gid, plan->gid, plan->gid) || setresuid(plan->uid, plan->uid, plan->uid))
        refuse("ids");
    /* A fresh, empty session keyring instead of the one we came with. */
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0, 0, 0) < 0)
        refuse("keyring");
    if (chdir(plan->cwd))
        refuse("cwd");
    umask(022);
    confine_limits(plan);
    if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC))
        refuse("close-range");
    confine_privileges();
    confine_landlock(plan);
    confine_seccomp(plan);
    is_confined = 1;
    execve(plan->argv[0], plan->argv, plan->envp);
    refuse("exec");
}

/* Pid 1 of the sandbox, as a user that nothing in it is: reaps, and ends when the worker does; the kernel then kills
 * whatever is left in the pid namespace. Should the spawner end, the kernel kills us: that one is pid 1 of us all. */
_Noreturn void run_init(const struct plan *plan, const int *streams, int go, uid_t init_uid) {
    const int places[][2] = {{streams[0], 0}, {streams[1], 1}, {streams[2], 2}, {report_fd, STATUS}, {go, GO}};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (dup2(places[i][0], places[i][1]) < 0)
            refuse("streams");
    report_fd = STATUS;
    if (syscall(SYS_close_range, GO + 1U, ~0U, 0))
        refuse("close-range");
    /* What needs no ids comes first: the spawner writes the maps meanwhile. */
    drop_bounding_set();
    if (sethostname(plan->hostname, strlen(plan->hostname)))
        refuse("hostname");
    char byte;
    ssize_t told = read(GO, &byte, 1);
    if (told < 0)
        refuse("id-map");
    if (told == 0) /* the spawner could not, and has said so */
        _exit(1);
    root_finish(plan);
    if (setresgid(plan->gid, plan->gid, plan->gid) || setresuid(init_uid, init_uid, init_uid))
        refuse("ids");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        refuse("dumpable");
    pid_t worker = vfork();
    if (worker < 0)
        refuse("fork");
    if (worker == 0)
        run_worker(plan);
    if (has_refused)
        _exit(1);
    keep_capabilities(0);
    if (syscall(SYS_close_range, 0U, 2U, 0) || syscall(SYS_close_range, GO, ~0U, 0))
        refuse("close-range");
    if (!is_confined) { /* killed on its way, by the memory limit for one */
        errno = ECHILD;
        refuse("worker");
    }
    if (report("started %u\n", landlock_abi()) < 0) /* a program that nobody knows of does not run */
        _exit(1);
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
