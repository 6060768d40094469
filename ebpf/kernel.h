/* The little that our programs use of the kernel's types. libbpf fits the offsets to the running kernel's, so only
 * names and types of the fields count; what is not there any more fails to load. No helper reads memory: under
 * lockdown=confidentiality that is refused, and typed access needs none.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_core_read.h> /* the types' ids; its reads are not for us */
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define S_IFMT 0170000
#define S_IFBLK 0060000
#define S_IFCHR 0020000
#define S_IFDIR 0040000
#define O_TRUNC 01000u
#define FMODE_WRITE 2u
#define FMODE_CREATED 0x100000u
#define PF_KTHREAD 0x200000u
#define SIGNAL_GROUP_EXIT 4u
#define CLONE_THREAD 0x10000u
/* CLONE_NEW…: time, mount, cgroup, UTS, IPC, user, PID, network */
#define CLONE_NAMESPACES (0x80u | 0x20000u | 0x2000000u | 0x4000000u | 0x8000000u | 0x10000000u | 0x20000000u | 0x40000000u)
#define PROT_WRITE 2u
#define PROT_EXEC 4u
#define EINPROGRESS 115

typedef unsigned short umode_t;

/* Every object says so; the linker keeps one. */
char LICENSE[] SEC("license") = "GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
    __u64 id;
};

struct bpf_local_storage;

struct cgroup {
    int level;
    struct kernfs_node *kn;
    struct bpf_local_storage *bpf_cgrp_storage;
};

struct css_set {
    struct cgroup *dfl_cgrp;
};

typedef struct {
    int counter;
} atomic_t;

struct signal_struct {
    atomic_t live;
    int group_exit_code;
    unsigned int flags;
};

typedef struct {
    __u32 val;
} kuid_t;

typedef struct {
    __u32 val;
} kgid_t;

typedef struct {
    __u64 val;
} kernel_cap_t;

struct user_namespace;

struct cred {
    kuid_t uid, euid;
    kgid_t gid, egid;
    kernel_cap_t cap_permitted, cap_effective;
    struct user_namespace *user_ns;
};

struct ns_common {
    unsigned int inum;
};

struct mnt_namespace {
    struct ns_common ns;
};

struct nsproxy {
    struct mnt_namespace *mnt_ns;
};

struct seccomp {
    atomic_t filter_count;
};

struct task_struct {
    struct seccomp seccomp;
    struct nsproxy *nsproxy;
    unsigned int flags;
    int exit_code;
    int pid, tgid;
    struct task_struct *real_parent, *group_leader;
    __u64 start_boottime;
    const struct cred *cred;
    char comm[16];
    struct signal_struct *signal;
    struct css_set *cgroups;
};

struct file_system_type {
    const char *name;
};

struct super_block {
    __u32 s_dev;
    unsigned long s_magic;
    struct file_system_type *s_type;
    char s_id[32];
};

struct inode {
    umode_t i_mode;
    __u32 i_rdev;
    unsigned int i_nlink;
    unsigned long i_ino;
    struct super_block *i_sb;
};

struct qstr {
    __u32 len;
    const unsigned char *name;
};

struct dentry {
    struct qstr d_name;
    struct inode *d_inode;
    struct dentry *d_parent;
    struct super_block *d_sb;
};

struct vfsmount {
    struct super_block *mnt_sb;
    int mnt_flags;
};

struct path {
    struct vfsmount *mnt;
    struct dentry *dentry;
};

struct file {
    unsigned int f_mode;
    struct inode *f_inode;
    unsigned int f_flags;
    struct path f_path;
};

struct linux_binprm {
    unsigned long p, exec;
    struct file *file;
    int argc;
};

struct in_addr {
    __u32 s_addr;
};

struct in6_addr {
    union {
        __u8 u6_addr8[16];
    } in6_u;
};

struct sockaddr {
    unsigned short sa_family;
};

struct sockaddr_in {
    __u16 sin_port;
    struct in_addr sin_addr;
};

struct sockaddr_in6 {
    __u16 sin6_port;
    struct in6_addr sin6_addr;
};

struct msghdr {
    void *msg_name;
    int msg_namelen;
};

struct bpf_map {
    __u32 id;
};

#pragma clang attribute pop
