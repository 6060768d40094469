/* What policies/enforce.toml becomes in the kernel. clawos/monitor/enforce.py writes these layouts; a test compares the
 * two by BTF. No consumer is needed for any of it to hold.
 *
 * The set 0, "default", holds for every sandbox. A call may be given one more, which can only forbid more.
 */
#pragma once
#include "../maps.h"

#define SETS 16
#define RULES 1024
#define PATH_KEY_BYTES 248 /* a trie's key has 256 at most, the set and the act among them */
#define DEVICES_MAX 64
#define HOSTS_MAX 256
#define GUESTS_MAX 4096

/* Numbers of rules that no line of the file has. */
enum { RULE_UNREADABLE, RULE_DEVICE, RULE_FAMILY, RULE_ACT, RULES_OWN };

enum act { ACT_OPEN, ACT_WRITE, ACT_EXECUTE };

/* What a set may forbid altogether. */
enum { FORBID_MODULE = 1, FORBID_PTRACE = 2, FORBID_MOUNT = 4, FORBID_NAMESPACE = 8 };

enum direction { TO_CONNECT, TO_BIND };

/* The longest that matches decides. A file is there with the end of its name, a directory with the slash after it. */
struct path_key {
    __u32 prefixlen;
    __u16 set;
    __u8 act;
    __u8 spare;
    char path[PATH_KEY_BYTES];
};

/* IPv4 as ::ffff:0:0/96. Of a rule for one port and one for all (0) that of the one port decides. */
struct address_key {
    __u32 prefixlen;
    __u16 set;
    __u8 direction;
    __u8 spare;
    __u16 port; /* as on the wire */
    __u16 spare2;
    __u8 address[16];
};

struct verdict {
    __u32 deny;
    __u32 rule;
};

/* A file or directory of the machine's, whatever name it is reached by. */
struct host_key {
    __u64 inode;
    __u32 device;
    __u32 spare;
};

struct set {
    __u64 families; /* 1 << AF_…: of sockets that may be made */
    __u32 forbid;
    __u32 known; /* 0: not in the file; who was given it may do nothing */
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, SETS);
    __type(key, __u32);
    __type(value, struct set);
} enforce_sets SEC(".maps") __weak;

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, RULES);
    __type(key, struct path_key);
    __type(value, struct verdict);
} enforce_paths SEC(".maps") __weak;

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __uint(max_entries, RULES);
    __type(key, struct address_key);
    __type(value, struct verdict);
} enforce_addresses SEC(".maps") __weak;

/* Character devices that may be opened, by major and minor as the kernel packs them; block devices never may. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, DEVICES_MAX);
    __type(key, __u32);
    __type(value, __u32);
} enforce_devices SEC(".maps") __weak;

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, HOSTS_MAX);
    __type(key, struct host_key);
    __type(value, struct verdict);
} enforce_hosts SEC(".maps") __weak;

/* The devices that the former lie on: a look that most files need no more than. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, HOSTS_MAX);
    __type(key, __u32);
    __type(value, __u32);
} enforce_host_devices SEC(".maps") __weak;

/* How often each rule has denied something. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, RULES);
    __type(key, __u32);
    __type(value, __u64);
} enforce_hits SEC(".maps") __weak;

/* The second set of a call, by its cgroup's id. The one map here that is written while the machine runs: by the user
 * of the monitor, who can tighten by it and nothing else. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, GUESTS_MAX);
    __type(key, __u64);
    __type(value, __u32);
} guest_sets SEC(".maps") __weak;
