/* Who is followed, and how a record comes into the ring. */
#pragma once
#include "kfuncs.h"
#include "maps.h"

#define WAKE_BYTES (RING_BYTES / 8) /* of what waits: then the consumer is woken whatever the kind */
#define SECOND_SHIFT 30

/* The current task's entry; NULL outside of what is followed, which a few loads tell. A sleepable program asks
 * copy_follow(). */
static __always_inline struct follow *followed(void) {
    struct task_struct *task = bpf_get_current_task_btf();
    struct cgroup *cgroup = task->cgroups->dfl_cgrp;
    if (!cgroup->bpf_cgrp_storage)
        return NULL;
    return bpf_cgrp_storage_get(&follows, cgroup, NULL, 0);
}

/* What is recorded of it now. What sets a sandbox up, before its own filter is on, is not the call's doing: of that
 * only which processes there are. */
#define LIFE (1ull << KIND_FORK | 1ull << KIND_EXEC | 1ull << KIND_EXIT)

static __always_inline bool records(const struct follow *follow, enum kind kind) {
    __u64 mask = follow->mask;
    if (follow->call && bpf_get_current_task_btf()->seccomp.filter_count.counter <= follow->filters)
        mask &= LIFE;
    return mask & 1ull << kind;
}

/* The same where this kind is recorded of it. */
static __always_inline struct follow *followed_for(enum kind kind) {
    struct follow *follow = followed();
    return follow && records(follow, kind) ? follow : NULL;
}

static __always_inline bool is_everywhere(enum kind kind) {
    __u32 key = kind;
    struct kind_setting *setting = bpf_map_lookup_elem(&kinds, &key);
    return setting && setting->flags & EVERYWHERE;
}

/* For kinds that are recorded wherever they happen: is this one? *follow: the entry, if there is one. */
static __always_inline bool is_recorded(enum kind kind, struct follow **follow) {
    *follow = followed();
    if (*follow && (*follow)->call)
        return records(*follow, kind);
    return (*follow && records(*follow, kind)) || is_everywhere(kind);
}

/* Whether it has one: what a sleepable program asks first. */
static __always_inline bool is_followed(void) {
    return bpf_get_current_task_btf()->cgroups->dfl_cgrp->bpf_cgrp_storage;
}

/* For sleepable programs. Returns false, and zeros, where nothing is followed. */
static __always_inline bool copy_follow(struct follow *to) {
    *to = (struct follow){};
    bpf_rcu_read_lock();
    struct follow *follow = followed();
    if (follow)
        *to = *follow;
    bpf_rcu_read_unlock();
    return follow != NULL;
}

/* The head of a record of the current task's. */
static __always_inline void fill(struct event *event, enum kind kind, const struct follow *follow) {
    struct task_struct *task = bpf_get_current_task_btf();
    struct task_struct *leader = task->group_leader, *parent = leader->real_parent;
    const struct cred *cred = task->cred;
    event->kind = kind;
    event->version = EVENT_VERSION;
    event->call_index = follow ? follow->call_index : 0;
    event->time_ns = bpf_ktime_get_boot_ns();
    event->cgroup = task->cgroups->dfl_cgrp->kn->id;
    event->call = follow ? follow->call : 0;
    event->pid = task->pid;
    event->tgid = task->tgid;
    event->start_ns = leader->start_boottime;
    event->parent_tgid = parent->tgid;
    event->parent_start_ns = parent->group_leader->start_boottime;
    event->uid = cred->uid.val;
    event->gid = cred->gid.val;
    event->text[0] = event->text[1] = 0;
    for (int i = 0; i < sizeof(event->comm); i += sizeof(__u64))
        *(__u64 *)(event->comm + i) = *(const __u64 *)(task->comm + i);
}

static __always_inline struct kind_count *count_of(enum kind kind) {
    __u32 key = kind;
    return bpf_map_lookup_elem(&counts, &key);
}

static __always_inline void lose(enum kind kind) {
    struct kind_count *count = count_of(kind);
    if (count)
        __sync_fetch_and_add(&count->lost, 1);
}

/* Hand a filled record over, of `size` bytes with its texts. Whatever becomes of it is counted. */
static __always_inline void emit(struct event *event, enum kind kind, __u64 size) {
    __u32 key = kind;
    struct kind_setting *setting = bpf_map_lookup_elem(&kinds, &key);
    struct kind_count *count = count_of(kind);
    if (!setting || !count)
        return;
    event->size = size;
    __u64 second = event->time_ns >> SECOND_SHIFT;
    if (count->second != second) {
        count->second = second;
        count->in_second = 0;
    }
    if (__sync_fetch_and_add(&count->in_second, 1) >= setting->per_second) {
        __sync_fetch_and_add(&count->limited, 1);
        return;
    }
    __u64 wake = BPF_RB_NO_WAKEUP;
    if (setting->flags & WAKES || bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > WAKE_BYTES)
        wake = 0; /* where the consumer has read all before it; else it is awake */
    if (bpf_ringbuf_output(&events, event, size, wake))
        __sync_fetch_and_add(&count->lost, 1);
    else
        __sync_fetch_and_add(&count->emitted, 1);
}
