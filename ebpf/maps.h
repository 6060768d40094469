/* The maps that all programs share. Weak: the linker keeps one of each.
 *
 * None grows without an end: `follows` has one small entry for a cgroup that is followed, and goes with it.
 */
#pragma once
#include "events.h"
#include "kernel.h"

#define RING_BYTES (8 << 20)

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, RING_BYTES);
} events SEC(".maps") __weak;

/* What of a cgroup is recorded, and whose it is. Whatever cgroup is made below it inherits it. */
struct follow {
    __u64 mask; /* 1 << kind */
    __u64 call; /* the sandbox's; 0: none */
    __u32 call_index; /* as in struct event */
    __u32 filters;    /* of a sandbox: the seccomp filters of who made it; one more is its own, and its set-up is over */
};

/* User space fills it by a cgroup's descriptor, the kernel at the making of a sandbox's cgroup. */
struct {
    __uint(type, BPF_MAP_TYPE_CGRP_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct follow);
} follows SEC(".maps") __weak;

#define CGROUP_PATH_BYTES 128
#define NAMED_MAX 64

struct cgroup_path {
    char path[CGROUP_PATH_BYTES]; /* zeros behind it; a longer one never equals a key */
};

/* Cgroups that the settings name: units' come and go with them. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, NAMED_MAX);
    __type(key, struct cgroup_path);
    __type(value, struct follow);
} named_cgroups SEC(".maps") __weak;

enum { EVERYWHERE = 1, WAKES = 2 };

struct kind_setting {
    __u32 per_second; /* records on one processor, in 2^30 ns */
    __u32 flags;      /* EVERYWHERE: whatever cgroup it is. WAKES: the consumer at once, else within a moment */
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, KINDS);
    __type(key, __u32);
    __type(value, struct kind_setting);
} kinds SEC(".maps") __weak;

struct kind_count {
    __u64 emitted;
    __u64 lost;    /* the ring was full, or no memory was left to write it in */
    __u64 limited; /* over per_second */
    __u64 second;
    __u64 in_second;
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, KINDS);
    __type(key, __u32);
    __type(value, struct kind_count);
} counts SEC(".maps") __weak;
