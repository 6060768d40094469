/* Acts that a hook sees with all their names before they happen, and another as they have succeeded: the record waits
 * with the task. Whoever completes it went through the first hook in the same act, so nothing stale is ever told.
 */
#pragma once
#include "scratch.h"
#include "text.h"

struct pending {
    __u32 kind;
    __u32 fixed;
    char record[RECORD_MAX];
};

/* One for a task, made at its first such act, gone with it. */
struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct pending);
} pendings SEC(".maps") __weak;

static __always_inline struct pending *begin(enum kind kind, const struct follow *follow, __u32 fixed) {
    struct pending *pending =
        bpf_task_storage_get(&pendings, bpf_get_current_task_btf(), NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (!pending) {
        lose(kind);
        return NULL;
    }
    pending->kind = kind;
    pending->fixed = fixed;
    fill((struct event *)pending->record, kind, follow);
    return pending;
}

/* The act is over: tell it where it succeeded. */
static __always_inline int finish(enum kind kind, long result) {
    struct pending *pending = bpf_task_storage_get(&pendings, bpf_get_current_task_btf(), NULL, 0);
    if (!pending || pending->kind != kind)
        return 0;
    pending->kind = 0;
    if (result)
        return 0;
    struct event *event = (struct event *)pending->record;
    __u32 size = BOUND(pending->fixed, FIXED_MAX - 1) + BOUND(event->text[0], TEXT_MAX - 1) + BOUND(event->text[1], TEXT_MAX - 1);
    emit(event, kind, size);
    return 0;
}

/* The same for kinds that are recorded only where followed. */
static __always_inline int finish_followed(enum kind kind, long result) {
    return followed_for(kind) ? finish(kind, result) : 0;
}
