/* What tells the kernel side that the set-up of a sandbox is over: a seccomp filter, here one that allows all. */
#pragma once
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>

static inline int confine_as(const char *cgroup) {
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = 1, .filter = &allow};
    return strstr(cgroup, "/call-") ? prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) : 0;
}
