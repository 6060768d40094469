/* Takes everything away from the worker: limits, capabilities, then Landlock, then seccomp. */
#define _GNU_SOURCE
#include "launch.h"

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Rights and scopes of ABI 5 and 6, for headers older than the kernel we run on. */
#define FS_IOCTL_DEV (1ULL << 15)
#define FS_TRUNCATE (1ULL << 14)
#define FS_REFER (1ULL << 13)
#define SCOPE_ABSTRACT_UNIX_SOCKET (1ULL << 0)
#define SCOPE_SIGNAL (1ULL << 1)

struct ruleset_attr { /* as of ABI 6 */
    uint64_t handled_access_fs, handled_access_net, scoped;
};
#define RULE_NET_PORT 2
struct net_port_attr { /* as of ABI 4 */
    uint64_t allowed_access, port;
};

void confine_limits(const struct plan *plan) {
    for (size_t i = 0; i < plan->limit_count; i++) {
        const struct limit *limit = &plan->limits[i];
        struct rlimit now;
        if (getrlimit(limit->resource, &now))
            refuse("rlimit");
        /* A limit that is already tighter stays: only lowering is allowed to us, and wanted. */
        rlim_t value = now.rlim_max < limit->value ? now.rlim_max : limit->value;
        if (setrlimit(limit->resource, &(struct rlimit){value, value}))
            refuse("rlimit");
    }
}

void keep_capabilities(uint32_t these) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct kept[2] = {{.effective = these, .permitted = these}};
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) || syscall(SYS_capset, &header, kept))
        refuse("capabilities");
}

/* Takes nothing from what we hold: it bounds what an exec could give. */
void drop_bounding_set(void) {
    for (unsigned long capability = 0;; capability++) {
        if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0)
            continue;
        if (errno != EINVAL || capability <= CAP_LAST_CAP)
            refuse("bounding-set");
        break; /* past the last one that this kernel knows */
    }
}

void confine_privileges(void) {
    unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                         SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                         SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0))
        refuse("securebits");
    keep_capabilities(0);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        refuse("no-new-privs");
}

unsigned landlock_abi(void) {
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return abi < 0 ? 0 : (unsigned)abi;
}

static void allow(int ruleset, const struct operation *rule, uint64_t handled) {
    const uint64_t for_files = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE |
                               LANDLOCK_ACCESS_FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV;
    struct landlock_path_beneath_attr attr = {.parent_fd = open(rule->path, O_PATH | O_CLOEXEC)};
    struct stat status;
    if (attr.parent_fd < 0 || fstat(attr.parent_fd, &status))
        refuse("landlock-path");
    attr.allowed_access = rule->flags & handled & (S_ISDIR(status.st_mode) ? ~0ULL : for_files);
    if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr, 0))
        refuse("landlock-rule");
    close(attr.parent_fd);
}

void confine_landlock(const struct plan *plan) {
    unsigned abi = landlock_abi();
    if (abi < plan->landlock_min || abi == 0) {
        errno = EOPNOTSUPP;
        refuse("landlock-abi");
    }
    struct ruleset_attr attr = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_SYM * 2 - 1};
    size_t size = sizeof attr.handled_access_fs;
    if (abi >= 2)
        attr.handled_access_fs |= FS_REFER;
    if (abi >= 3)
        attr.handled_access_fs |= FS_TRUNCATE;
    if (abi >= 4) { /* TCP: handled, and no rule allows any but to the plan's port */
        attr.handled_access_net = LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP;
        size = 2 * sizeof(uint64_t);
    }
    if (abi >= 5)
        attr.handled_access_fs |= FS_IOCTL_DEV;
    if (abi >= 6) {
        attr.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
        size = sizeof attr;
    }
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (ruleset < 0)
        refuse("landlock");
    for (size_t i = 0; i < plan->operation_count; i++)
        if (plan->operations[i].kind == KIND_ALLOW)
            allow(ruleset, &plan->operations[i], attr.handled_access_fs);
    if (plan->connect_port) { /* refused below ABI 4, which knows no such rule */
        struct net_port_attr port = {LANDLOCK_ACCESS_NET_CONNECT_TCP, plan->connect_port};
        if (syscall(SYS_landlock_add_rule, ruleset, RULE_NET_PORT, &port, 0))
            refuse("landlock-rule");
    }
    if (syscall(SYS_landlock_restrict_self, ruleset, 0))
        refuse("landlock");
    close(ruleset);
}

void confine_seccomp(const struct plan *plan) {
    struct sock_fprog program = {.len = (unsigned short)(plan->filter_size / 8),
                                 .filter = (struct sock_filter *)(uintptr_t)plan->filter};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        refuse("seccomp");
}
