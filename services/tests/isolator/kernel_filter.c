/* kernel_filter FILTER: what the kernel itself answers to calls under a filter, without carrying any out.
 *
 * Standard input: calls, each a struct call; standard output: for each the filter's 32-bit return value.
 * A worker loads two filters. The first hands every call to us, and we answer EUCLEAN; the second is the one in
 * question, whose refusals the kernel prefers. So EUCLEAN means that the filter allows.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS_MAX (1u << 20)

struct call {
    uint64_t number, arguments[6], by_int80;
};

static struct shared {
    volatile int listener;
    volatile uint32_t next, answers[CALLS_MAX];
} *shared;

static struct call *calls;
static uint32_t count;
static struct sock_fprog judged;

static void must(int fine, const char *what) {
    if (!fine) {
        perror(what);
        exit(1);
    }
}

static uint32_t answer(const struct call *call) {
    long got;
    const uint64_t *a = call->arguments;
    if (call->by_int80) {
        __asm__ volatile("int $0x80" : "=a"(got) : "a"(call->number), "b"(a[0]), "c"(a[1]), "d"(a[2]) : "memory");
        errno = (int)-got;
    } else {
        got = syscall((long)call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
        if (got >= 0)
            return SECCOMP_RET_LOG; /* it ran: no filter of ours does that */
    }
    return errno == EUCLEAN ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | (uint32_t)errno;
}

static void work(void) {
    struct sock_filter hand_over[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW), /* to load the second; that one denies it */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
    };
    struct sock_fprog first = {sizeof hand_over / sizeof *hand_over, hand_over};
    must(!prctl(PR_SET_PDEATHSIG, SIGKILL) && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl");
    int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &first);
    must(listener >= 0, "listener");
    shared->listener = listener;
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &judged))
        __builtin_trap();
    for (; shared->next < count; shared->next++)
        shared->answers[shared->next] = answer(&calls[shared->next]);
    for (;;) /* no call would get through now, not even the one that ends us */
        __asm__ volatile("pause");
}

/* One worker, until it is done or killed. */
static void supervise(void) {
    shared->listener = -1;
    pid_t worker = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    must(worker >= 0, "clone");
    if (worker == 0)
        work();
    int status = 0;
    while (shared->next < count && waitpid(worker, &status, WNOHANG) == 0) {
        struct pollfd ready = {shared->listener, POLLIN, 0};
        if (poll(&ready, 1, 1) < 1 || !(ready.revents & POLLIN))
            continue;
        struct seccomp_notif asked = {0};
        if (ioctl(shared->listener, SECCOMP_IOCTL_NOTIF_RECV, &asked))
            continue; /* it was killed meanwhile */
        struct seccomp_notif_resp told = {.id = asked.id, .error = -EUCLEAN};
        ioctl(shared->listener, SECCOMP_IOCTL_NOTIF_SEND, &told);
    }
    if (shared->next < count) {
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) {
            fprintf(stderr, "at call %u (%#llx) the worker ended with %#x\n", shared->next,
                    (unsigned long long)calls[shared->next].number, (unsigned)status);
            exit(1);
        }
        shared->answers[shared->next++] = SECCOMP_RET_KILL_PROCESS;
    } else {
        kill(worker, SIGKILL);
        waitpid(worker, NULL, 0);
    }
    close(shared->listener);
}

int main(int argc, char **argv) {
    static struct sock_filter code[BPF_MAXINSNS];
    must(argc == 2, "usage: kernel_filter FILTER");
    int fd = open(argv[1], O_RDONLY);
    ssize_t size = read(fd, code, sizeof code);
    must(size > 0, argv[1]);
    judged = (struct sock_fprog){(unsigned short)(size / (ssize_t)sizeof *code), code};
    calls = calloc(CALLS_MAX, sizeof *calls);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(calls && shared != MAP_FAILED, "memory");
    must(!setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}), "setrlimit");
    count = (uint32_t)fread(calls, sizeof *calls, CALLS_MAX, stdin);
    while (shared->next < count)
        supervise();
    fwrite((const void *)shared->answers, sizeof *shared->answers, count, stdout);
    return fflush(stdout) != 0;
}
