/* Which cgroups are followed: each sandbox's leaf, by its name; those that the settings name; all below one that is.
 * The kernel side knows them before anything runs in them, and whatever state user space is in.
 */
#include "../emit.h"

#define ISOLATOR "/system.slice/clawos-isolator.service/call-"
#define DIGITS 16
#define INDEX_DIGITS 9
#define ALL (~0ull)

static __always_inline int digit_of(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* call-<16 hexadecimal digits>, and -<decimal number> where it is one of a group; nothing else. */
static __always_inline bool parse_call(const char *name, struct follow *follow) {
    __u64 call = 0;
    for (int i = 0; i < DIGITS; i++) {
        int digit = digit_of(name[i]);
        if (digit < 0)
            return false;
        call = call << 4 | digit;
    }
    name += DIGITS;
    __u32 index = 0;
    if (*name == '-') {
        int i;
        for (i = 1; i <= INDEX_DIGITS && name[i]; i++) {
            if (name[i] < '0' || name[i] > '9')
                return false;
            index = index * 10 + (name[i] - '0');
        }
        if (i == 1 || name[i])
            return false;
        index++;
    } else if (*name) {
        return false;
    }
    *follow = (struct follow){
        .mask = ALL,
        .call = call,
        .call_index = index,
        .filters = bpf_get_current_task_btf()->seccomp.filter_count.counter,
    };
    return true;
}

static __always_inline bool is_sandbox(const char *path, struct follow *follow) {
    for (int i = 0; i < sizeof(ISOLATOR) - 1; i++)
        if (path[i] != ISOLATOR[i])
            return false;
    return parse_call(path + sizeof(ISOLATOR) - 1, follow);
}

static __always_inline bool is_named(const struct cgroup_path *path, struct follow *follow) {
    struct follow *named = bpf_map_lookup_elem(&named_cgroups, path);
    if (named)
        *follow = *named;
    return named != NULL;
}

static __always_inline bool is_below_followed(struct cgroup *cgroup, struct follow *follow) {
    struct cgroup *parent = bpf_cgroup_ancestor(cgroup, cgroup->level - 1);
    if (!parent)
        return false;
    struct follow *found = bpf_cgrp_storage_get(&follows, parent, NULL, 0);
    if (found)
        *follow = *found;
    bpf_cgroup_release(parent);
    return found != NULL;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(on_cgroup_mkdir, struct cgroup *cgroup, const char *path) {
    static const char format[] = "%s";
    struct cgroup_path known = {};
    struct follow follow = {};
    __u64 arguments[] = {(__u64)path};
    bpf_snprintf(known.path, sizeof(known.path), format, arguments, sizeof(arguments));
    if (!is_sandbox(known.path, &follow) && !is_named(&known, &follow) && !is_below_followed(cgroup, &follow))
        return 0;
    if (!bpf_cgrp_storage_get(&follows, cgroup, &follow, BPF_LOCAL_STORAGE_GET_F_CREATE))
        lose(KIND_LOST);
    return 0;
}
