/* Is the current task in a sandbox, and what holds for it. By where its cgroup lies, not by an entry in a map: there is
 * none that could be missing.
 */
#pragma once
#include "../emit.h"
#include "enforce.h"

#define ISOLATOR_LEVEL 2 /* /system.slice/clawos-isolator.service */
#define LEAF_LEVEL 3
#define EPERM 1

/* The isolator's cgroups, by id: all below the first but the second is sandboxes. Written where they are made. */
struct isolator {
    __u64 service;
    __u64 supervisor;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct isolator);
} isolators SEC(".maps") __weak;

/* How many seccomp filters who made a sandbox's cgroup had: one more is the sandbox's own, and its set-up is over. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, GUESTS_MAX);
    __type(key, __u64);
    __type(value, __u32);
} guest_filters SEC(".maps") __weak;

struct guest {
    __u64 leaf; /* the call's cgroup */
    __u32 set;  /* besides 0; 0: none */
};

static __always_inline bool is_guest(struct guest *guest) {
    struct task_struct *task = bpf_get_current_task_btf();
    __u32 key = 0;
    if (task->cgroups->dfl_cgrp->level < LEAF_LEVEL)
        return false;
    struct isolator *isolator = bpf_map_lookup_elem(&isolators, &key);
    if (!isolator || bpf_get_current_ancestor_cgroup_id(ISOLATOR_LEVEL) != isolator->service)
        return false;
    guest->leaf = bpf_get_current_ancestor_cgroup_id(LEAF_LEVEL);
    if (guest->leaf == isolator->supervisor)
        return false;
    __u32 *set = bpf_map_lookup_elem(&guest_sets, &guest->leaf);
    guest->set = set ? *set : 0;
    return true;
}

/* Whether its filter is up, that is, all fences are: from then on it mounts nothing and makes no namespaces. */
static __always_inline bool is_confined(const struct guest *guest) {
    struct task_struct *task = bpf_get_current_task_btf();
    __u32 *before = bpf_map_lookup_elem(&guest_filters, &guest->leaf);
    return task->seccomp.filter_count.counter > (before ? *before : 0);
}

static __always_inline struct set *set_of(__u32 number) {
    return number < SETS ? bpf_map_lookup_elem(&enforce_sets, &number) : NULL;
}

static __always_inline bool is_known(__u32 number) {
    struct set *set = set_of(number);
    return set && set->known;
}

/* Does either set forbid one of these altogether? What cannot be looked up does. */
static __always_inline bool is_forbidden(const struct guest *guest, __u32 what) {
    struct set *first = set_of(0), *second = guest->set ? set_of(guest->set) : first;
    if (!first || !second || !second->known)
        return true;
    return (first->forbid | second->forbid) & what;
}

static __always_inline void count_hit(__u32 rule) {
    __u64 *hits = bpf_map_lookup_elem(&enforce_hits, &rule);
    if (hits)
        __sync_fetch_and_add(hits, 1);
}

/* The verdict's record; `length` of its text, which follows it, in a room of `room` bytes. */
static __always_inline void tell_text(struct event_denied *record, enum hook hook, __u64 length, __u64 room) {
    __asm__ volatile("" : "+r"(length)); /* keeps the check where the verifier sees it */
    if (length > room)
        length = 0;
    fill(&record->event, KIND_DENIED, followed());
    record->hook = hook;
    record->error = EPERM;
    record->event.text[0] = length;
    emit(&record->event, KIND_DENIED, sizeof(*record) + length);
}

static __always_inline void tell(struct event_denied *record, enum hook hook) {
    tell_text(record, hook, 0, 0);
}

/* One that says no more than the hook. */
static __always_inline int deny(enum hook hook, __u32 rule) {
    struct event_denied record = {};
    count_hit(rule);
    tell(&record, hook);
    return -EPERM;
}
