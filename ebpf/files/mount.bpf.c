/* File systems put into the tree: by mount(2) and by the newer move_mount(2). Told once it is done. */
#include "../pending.h"

static __always_inline int begin_mount(struct path *where, const void *what, const void *type, __u64 flags) {
    struct follow *follow;
    struct pending *pending =
        is_recorded(KIND_MOUNT, &follow) ? begin(KIND_MOUNT, follow, sizeof(struct event_mount)) : NULL;
    if (!pending)
        return 0;
    struct event_mount *mount = (struct event_mount *)pending->record;
    mount->flags = flags;
    copy_text(mount->type, sizeof(mount->type), type);
    char *text = (char *)(mount + 1);
    __u32 length = BOUND(path_of(text, where), TEXT_MAX - 1);
    mount->event.text[0] = length;
    mount->event.text[1] = copy_text(text + length, TEXT_MAX, what);
    return 0;
}

SEC("lsm/sb_mount")
int BPF_PROG(on_mount, const char *what, struct path *where, const char *type, unsigned long flags) {
    return begin_mount(where, what, type, flags);
}

SEC("fexit/path_mount")
int BPF_PROG(after_mount, const char *what, struct path *where, const char *type, unsigned long flags, void *data,
             int result) {
    return finish(KIND_MOUNT, result);
}

SEC("lsm/move_mount")
int BPF_PROG(on_move_mount, struct path *what, struct path *where) {
    struct super_block *super = what->mnt->mnt_sb;
    return begin_mount(where, super->s_id, super->s_type->name, what->mnt->mnt_flags);
}

SEC("fexit/" SYSCALL("move_mount"))
int BPF_PROG(after_move_mount, const struct pt_regs *registers, long result) {
    return finish(KIND_MOUNT, result);
}
