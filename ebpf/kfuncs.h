/* Functions of the kernel's own that programs call. bpftool 7.5 does not link two objects that name the same one: so
 * each object has a name of its own for it, and libbpf drops what follows ___. UNIT comes from the Makefile.
 */
#pragma once
#include "kernel.h"

#define JOIN(name, unit) name##___##unit
#define JOIN_EXPANDED(name, unit) JOIN(name, unit)
#define OWN(name) JOIN_EXPANDED(name, UNIT)

#define bpf_rcu_read_lock OWN(bpf_rcu_read_lock)
#define bpf_rcu_read_unlock OWN(bpf_rcu_read_unlock)
#define bpf_path_d_path OWN(bpf_path_d_path)
#define bpf_rdonly_cast OWN(bpf_rdonly_cast)
#define bpf_cgroup_ancestor OWN(bpf_cgroup_ancestor)
#define bpf_cgroup_release OWN(bpf_cgroup_release)

void bpf_rcu_read_lock(void) __ksym;
void bpf_rcu_read_unlock(void) __ksym;
/* Only for LSM programs. */
int bpf_path_d_path(const struct path *path, char *buffer, size_t buffer__sz) __ksym;
void *bpf_rdonly_cast(const void *object, __u32 type) __ksym;
struct cgroup *bpf_cgroup_ancestor(struct cgroup *cgroup, int level) __ksym;
void bpf_cgroup_release(struct cgroup *cgroup) __ksym;

/* The kernel's own side of a mount. */
#define MOUNT_OF(vfsmount) READ_AS(struct mount, (void *)(vfsmount)-bpf_core_field_offset(struct mount, mnt))

/* A pointer of no type, or of another, read as one to this type. */
#define READ_AS(type, pointer) ((type *)bpf_rdonly_cast((pointer), bpf_core_type_id_kernel(type)))
