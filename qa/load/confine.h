/* What tells the kernel side that the set-up of a sandbox is over: a seccomp filter, here one that allows all. */
#pragma once
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>

#define SECCOMP_MODE_FILTER 2
#define SECCOMP_RET_ALLOW 0x7fff0000u
#define BPF_RET_K 6

/* musl's compiler finds none of the kernel's headers */
struct sock_filter {
    uint16_t code;
    uint8_t jt, jf;
    uint32_t k;
};

struct sock_fprog {
    unsigned short len;
    struct sock_filter *filter;
};

static inline int confine_as(const char *cgroup) {
    struct sock_filter allow = {.code = BPF_RET_K, .k = SECCOMP_RET_ALLOW};
    struct sock_fprog program = {.len = 1, .filter = &allow};
    return strstr(cgroup, "/call-") ? prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) : 0;
}
