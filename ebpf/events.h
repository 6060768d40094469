/* What the monitor's programs tell user space: the records in the ring buffer `events`.
 *
 * Frozen: its hash is in policies/MANIFEST, and a test compares the layout with clawos/monitor/records.py by BTF.
 * A record is a struct event, then what its kind adds, then up to two texts without an end, as long as event.text
 * says: no byte more. All in the machine's byte order but addresses, which are as on the wire. There is no hidden
 * padding. A change of any layout is a new EVENT_VERSION.
 */
#pragma once
#include <linux/types.h>

#define EVENT_VERSION 1
#define TEXT_MAX 4096 /* PATH_MAX */
#define ARGS_MAX 2048
#define ANCESTORS 8

enum kind {
    KIND_FORK = 1, /* a process, not a thread */
    KIND_EXEC,
    KIND_EXIT, /* of the last thread */
    KIND_OPEN,
    KIND_CREATE, /* of any file but a symbolic link; by open(2), an `open` follows */
    KIND_UNLINK,
    KIND_RENAME,
    KIND_CHMOD,
    KIND_LINK,
    KIND_SOCKET,
    KIND_CONNECT,
    KIND_BIND,
    KIND_LISTEN,
    KIND_ACCEPT,
    KIND_DNS,
    KIND_MODULE,
    KIND_MOUNT,
    KIND_PTRACE,
    KIND_SETID,
    KIND_CAPSET,
    KIND_NAMESPACE,
    KIND_BPF,
    KIND_KILL,
    KIND_MPROTECT,
    KIND_DENIED,  /* the enforcement's verdict */
    KIND_ANOMALY, /* user space's verdict; never in the ring */
    KIND_LOST,    /* made by user space of the counters; counts here what could not be followed */
    KINDS,
};

struct event {
    __u16 size; /* of the whole record */
    __u8 kind;
    __u8 version;
    __u32 call_index; /* 1 + its number, of a call in a group; else 0 */
    __u64 time_ns;    /* CLOCK_BOOTTIME */
    __u64 cgroup;     /* id: its inode */
    __u64 call;       /* the sandbox's call or group; 0 outside */
    __u32 pid;        /* of the thread, as all ids in the first namespace */
    __u32 tgid;
    __u64 start_ns; /* of the process, CLOCK_BOOTTIME: with tgid, its name for ever */
    __u64 parent_start_ns;
    __u32 parent_tgid;
    __u32 uid;
    __u32 gid;
    __u16 text[2]; /* lengths of what follows */
    char comm[16];
};

struct event_fork {
    struct event event;
    __u64 child_start_ns;
    __u32 child_tgid;
    __u32 spare;
};

/* Of exec: what there is of its arguments and of its environment. */
#define EXEC_ARGS_TRUNCATED 1
#define EXEC_LD_PRELOAD 2 /* its environment has a variable of this name, to which the dynamic linker listens */
#define EXEC_LD_AUDIT 4
#define EXEC_LD_LIBRARY_PATH 8
#define EXEC_GLIBC_TUNABLES 16

struct event_exec { /* text: path as the kernel knows it, arguments that each end with 0 */
    struct event event;
    __u64 inode;
    __u32 device;
    __u32 links; /* 0: the file has no name any more, or never had one */
    __u32 argc;
    __u32 flags;
    __u32 ancestors[ANCESTORS]; /* tgid of the parent, of its parent, … */
};

struct event_exit {
    struct event event;
    __u32 code;
    __u32 signal;
};

struct event_open { /* text: path */
    struct event event;
    __u32 flags;
    __u32 mode; /* of the file */
    __u32 write;
    __u32 spare;
};

struct event_create { /* text: path */
    struct event event;
    __u32 mode;
    __u32 spare;
};

struct event_unlink { /* text: path */
    struct event event;
    __u32 directory;
    __u32 spare;
};

struct event_rename { /* text: path, new path */
    struct event event;
    __u32 flags;
    __u32 spare;
};

struct event_chmod { /* text: path */
    struct event event;
    __u32 mode;
    __u32 spare;
};

struct event_link { /* text: what is linked to, the link */
    struct event event;
    __u32 symbolic;
    __u32 spare;
};

struct address {
    __u16 family;
    __u16 port;
    __u8 bytes[16]; /* IPv4 in the first four */
    __u32 spare;
};

struct event_socket {
    struct event event;
    __u32 family;
    __u32 type;
    __u32 protocol;
    __u32 spare;
};

struct event_connect { /* text: of a Unix socket, its path; @ first: abstract */
    struct event event;
    struct address address;
    __s32 error; /* 0, EINPROGRESS: the answer is open, or why there is no connection */
    __u32 type;
};

struct event_bind { /* text: as for connect */
    struct event event;
    struct address address;
};

struct event_listen { /* text: as for connect */
    struct event event;
    struct address address;
    __u32 backlog;
    __u32 spare;
};

struct event_accept { /* address: the other end's; text: as for connect */
    struct event event;
    struct address address;
};

struct event_dns { /* text: the question as it goes out, or its beginning */
    struct event event;
    struct address server;
};

struct event_module {
    struct event event;
    char name[56];
};

struct event_mount { /* text: where, what */
    struct event event;
    __u64 flags;
    char type[16];
};

struct event_ptrace {
    struct event event;
    __u32 target; /* tgid */
    __s32 request; /* of ptrace(2); -1: access to its memory in another way */
};

struct event_setid {
    struct event event;
    __u32 old_uid, new_uid, old_gid, new_gid; /* effective */
};

struct event_capset {
    struct event event;
    __u64 effective, permitted;
};

enum { BY_UNSHARE = 1, BY_SETNS, BY_CLONE };

struct event_namespace {
    struct event event;
    __u32 flags; /* CLONE_NEW…; of setns, 0: whatever the descriptor is */
    __u32 how;
};

struct event_bpf {
    struct event event;
    __u32 command;
    __u32 spare;
    char name[16];
};

struct event_kill {
    struct event event;
    __u32 target; /* tgid */
    __u32 signal;
};

struct event_mprotect {
    struct event event;
    __u64 address, size;
};

enum hook {
    ON_FILE_OPEN = 1,
    ON_EXEC,
    ON_CONNECT,
    ON_BPF, /* port: the command */
    ON_MODULE_REQUEST,
    ON_PTRACE,
    ON_MOUNT,
    ON_BIND,
    ON_SOCKET,
    ON_NAMESPACE,
    ON_PIN, /* of the monitor's own, or what bears them */
};

struct event_denied { /* text: path, or whatever the hook has to say */
    struct event event;
    __u32 hook;
    __s32 error;
    struct address address;
};
