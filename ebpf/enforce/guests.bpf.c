/* Which cgroups are the isolator's, from the moment they are made: nothing runs in them yet. */
#include "guest.h"

#define SERVICE "/system.slice/clawos-isolator.service"
#define SUPERVISOR SERVICE "/supervisor"
#define NAME_BYTES 64 /* longer than both: what is cut is neither */

static __always_inline bool is_name(const char *name, const char *wanted, int bytes) {
    for (int i = 0; i < bytes; i++)
        if (name[i] != wanted[i])
            return false;
    return true;
}

SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(enforce_cgroup_mkdir, struct cgroup *cgroup, const char *path) {
    static const char format[] = "%s";
    int level = cgroup->level;
    if (level != ISOLATOR_LEVEL && level != LEAF_LEVEL)
        return 0;
    char name[NAME_BYTES] = {};
    __u64 arguments[] = {(__u64)path};
    bpf_snprintf(name, sizeof(name), format, arguments, sizeof(arguments));
    __u32 key = 0;
    __u64 id = cgroup->kn->id;
    struct isolator *isolator = bpf_map_lookup_elem(&isolators, &key);
    if (!isolator || !is_name(name, SERVICE, sizeof(SERVICE) - 1))
        return 0;
    if (level == ISOLATOR_LEVEL && !name[sizeof(SERVICE) - 1]) {
        isolator->service = id;
    } else if (level == LEAF_LEVEL && is_name(name, SUPERVISOR, sizeof(SUPERVISOR))) {
        isolator->supervisor = id;
    } else if (level == LEAF_LEVEL && name[sizeof(SERVICE) - 1] == '/') {
        __u32 filters = bpf_get_current_task_btf()->seccomp.filter_count.counter;
        /* Where there is no room its set-up is refused the mounts, and the call with it. */
        bpf_map_update_elem(&guest_filters, &id, &filters, BPF_ANY);
    }
    return 0;
}

SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(enforce_cgroup_rmdir, struct cgroup *cgroup, const char *path) {
    __u64 id = cgroup->kn->id;
    if (cgroup->level != LEAF_LEVEL)
        return 0;
    bpf_map_delete_elem(&guest_filters, &id);
    bpf_map_delete_elem(&guest_sets, &id);
    return 0;
}
