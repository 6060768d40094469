/* Other ids or other capabilities, by whatever system call or program: as they come into force. */
#include "../emit.h"

static __always_inline int tell_ids(const struct cred *old, const struct cred *new) {
    struct follow *follow;
    if (!is_recorded(KIND_SETID, &follow))
        return 0;
    struct event_setid event = {
        .old_uid = old->euid.val, .new_uid = new->euid.val, .old_gid = old->egid.val, .new_gid = new->egid.val};
    fill(&event.event, KIND_SETID, follow);
    emit(&event.event, KIND_SETID, sizeof(event));
    return 0;
}

static __always_inline int tell_capabilities(const struct cred *new) {
    struct follow *follow;
    if (!is_recorded(KIND_CAPSET, &follow))
        return 0;
    struct event_capset event = {.effective = new->cap_effective.val, .permitted = new->cap_permitted.val};
    fill(&event.event, KIND_CAPSET, follow);
    emit(&event.event, KIND_CAPSET, sizeof(event));
    return 0;
}

/* Nothing can stop it any more. The head of the record still has the old ids. */
SEC("fentry/commit_creds")
int BPF_PROG(on_credentials, struct cred *new) {
    const struct cred *old = bpf_get_current_task_btf()->cred;
    if (old->uid.val != new->uid.val || old->euid.val != new->euid.val || old->gid.val != new->gid.val ||
        old->egid.val != new->egid.val)
        return tell_ids(old, new);
    /* In a new user namespace all of them come along, and are over that one only: `namespace` tells. */
    if (old->user_ns == new->user_ns && (old->cap_effective.val != new->cap_effective.val ||
                                         old->cap_permitted.val != new->cap_permitted.val))
        return tell_capabilities(new);
    return 0;
}
