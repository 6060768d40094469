/* What a set forbids altogether: modules, tracing, mounts, namespaces. */
#include "guest.h"

#define PTRACE_MODE_ATTACH 2u
#define PTRACE_MODE_NOAUDIT 4u
#define NAME_BYTES 64

static __always_inline int forbid(const struct guest *guest, __u32 what, enum hook hook) {
    return is_forbidden(guest, what) ? deny(hook, RULE_ACT) : 0;
}

struct named {
    struct event_denied record;
    char name[NAME_BYTES];
};

SEC("lsm/kernel_module_request")
int BPF_PROG(enforce_module, char *name) {
    static const char format[] = "%s";
    struct guest guest;
    if (!is_guest(&guest) || !is_forbidden(&guest, FORBID_MODULE))
        return 0;
    struct named told = {};
    __u64 arguments[] = {(__u64)name};
    long length = bpf_snprintf(told.name, sizeof(told.name), format, arguments, sizeof(arguments));
    count_hit(RULE_ACT);
    tell_text(&told.record, ON_MODULE_REQUEST, length > 0 ? length - 1 : 0, sizeof(told.name));
    return -EPERM;
}

/* Asked where the kernel would allow it. To look at a process is less than to take hold of it: that much is left inside
 * the sandbox, for its own ps; /proc/PID/root of any other leads out. */
SEC("lsm/ptrace_access_check")
int BPF_PROG(enforce_ptrace, struct task_struct *target, unsigned int mode) {
    struct guest guest;
    if (!is_guest(&guest) || !is_forbidden(&guest, FORBID_PTRACE))
        return 0;
    struct cgroup *there = target->cgroups->dfl_cgrp, *here = bpf_get_current_task_btf()->cgroups->dfl_cgrp;
    if (!(mode & PTRACE_MODE_ATTACH) && there == here)
        return 0;
    if (mode & PTRACE_MODE_NOAUDIT)
        return -EPERM;
    return deny(ON_PTRACE, RULE_ACT);
}

SEC("lsm/ptrace_traceme")
int BPF_PROG(enforce_traceme, struct task_struct *parent) {
    struct guest guest;
    return is_guest(&guest) ? forbid(&guest, FORBID_PTRACE, ON_PTRACE) : 0;
}

/* The set-up of a sandbox mounts inside its cgroup, until its filter is up. */
static __always_inline int judge_mount(void) {
    struct guest guest;
    return is_guest(&guest) && is_confined(&guest) ? forbid(&guest, FORBID_MOUNT, ON_MOUNT) : 0;
}

SEC("lsm/sb_mount")
int BPF_PROG(enforce_mount, const char *device, struct path *path, const char *type, unsigned long flags, void *data) {
    return judge_mount();
}

SEC("lsm/move_mount")
int BPF_PROG(enforce_move_mount, struct path *from, struct path *to) {
    return judge_mount();
}

SEC("lsm/sb_umount")
int BPF_PROG(enforce_umount, struct vfsmount *mount, int flags) {
    return judge_mount();
}

SEC("lsm/sb_pivotroot")
int BPF_PROG(enforce_pivot_root, struct path *from, struct path *to) {
    return judge_mount();
}

SEC("lsm/sb_remount")
int BPF_PROG(enforce_remount, struct super_block *file_system, void *options) {
    return judge_mount();
}

/* A user namespace is where half of the kernel's holes begin. */
SEC("lsm/userns_create")
int BPF_PROG(enforce_userns, const struct cred *cred) {
    struct guest guest;
    return is_guest(&guest) && is_confined(&guest) ? forbid(&guest, FORBID_NAMESPACE, ON_NAMESPACE) : 0;
}
