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

/* For the verifier, which forgets what the compiler knows: a mask that is not optimised away. */
#define BOUND(value, mask) ({ __u32 _value = (value); barrier_var(_value); _value & (mask); })

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
    struct fs_struct *fs;
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
    struct dentry *mnt_root;
    struct super_block *mnt_sb;
    int mnt_flags;
};

struct mount {
    struct mount *mnt_parent;
    struct vfsmount mnt;
    struct mnt_namespace *mnt_ns;
};

struct path {
    struct vfsmount *mnt;
    struct dentry *dentry;
};

struct fs_struct {
    struct path root;
};

struct file {
    unsigned int f_mode;
    struct inode *f_inode;
    unsigned int f_flags;
    struct path f_path;
    void *private_data;
};

struct linux_binprm {
    unsigned long p, exec;
    struct file *file;
    int argc;
};

struct in6_addr {
    union {
        __u8 u6_addr8[16];
        __be32 u6_addr32[4];
    } in6_u;
};

struct in_addr {
    __be32 s_addr;
};

struct sockaddr {
    unsigned short sa_family;
};

struct sockaddr_in {
    __be16 sin_port;
    struct in_addr sin_addr;
};

struct sockaddr_in6 {
    __be16 sin6_port;
    struct in6_addr sin6_addr;
};

struct sock_common {
    __u16 skc_family;
    __be16 skc_dport; /* on the wire's order */
    __u16 skc_num;    /* ours, in the machine's */
    __be32 skc_daddr, skc_rcv_saddr;
    struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
};

struct sock {
    struct sock_common __sk_common;
    __u16 sk_protocol;
};

struct socket {
    short type;
    struct sock *sk;
};

struct sockaddr_un {
    unsigned short sun_family;
};

struct unix_address {
    int len;
    struct sockaddr_un name[];
};

struct unix_sock {
    struct unix_address *addr;
};

/* The kernel's name for what it calls sockaddr_storage. */
struct __kernel_sockaddr_storage {
    unsigned short ss_family;
    char __data[126];
};

struct iovec {
    void *iov_base;
    __u64 iov_len;
};

enum iter_type { ITER_UBUF, ITER_IOVEC };

struct iov_iter {
    __u8 iter_type;
    __u64 iov_offset;
    struct iovec __ubuf_iovec;
    const struct iovec *__iov;
    __u64 count;
};

struct msghdr {
    void *msg_name;
    int msg_namelen;
    struct iov_iter msg_iter;
};

struct bpf_map {
    __u32 id;
};

struct module {
    char name[56];
};

struct pt_regs {
#if defined(__TARGET_ARCH_x86)
    unsigned long di, si, orig_ax;
#elif defined(__TARGET_ARCH_arm64)
    __u64 regs[31];
    int syscallno;
#endif
};

#pragma clang attribute pop

#if defined(__TARGET_ARCH_x86)
#define SYSCALL(name) "__x64_sys_" name
#define SYSCALL_ARGUMENT_1(registers) ((registers)->di)
#define SYSCALL_ARGUMENT_2(registers) ((registers)->si)
#define SYSCALL_NUMBER(registers) ((registers)->orig_ax)
#define NR_PTRACE 101
#elif defined(__TARGET_ARCH_arm64)
#define SYSCALL(name) "__arm64_sys_" name
#define SYSCALL_ARGUMENT_1(registers) ((registers)->regs[0])
#define SYSCALL_ARGUMENT_2(registers) ((registers)->regs[1])
#define SYSCALL_NUMBER(registers) ((registers)->syscallno)
#define NR_PTRACE 117
#endif
