/* Names of files made, removed and changed, and modes: each by the hook that knows the path, told once it is done. */
#include "../pending.h"

SEC("lsm/path_mkdir")
int BPF_PROG(on_mkdir, const struct path *directory, struct dentry *dentry, umode_t mode) {
    struct follow *follow = followed_for(KIND_CREATE);
    struct pending *pending = follow ? begin(KIND_CREATE, follow, sizeof(struct event_create)) : NULL;
    if (!pending)
        return 0;
    struct event_create *create = (struct event_create *)pending->record;
    create->mode = S_IFDIR | mode;
    create->spare = 0;
    create->event.text[0] = path_in((char *)(create + 1), directory, dentry);
    return 0;
}

SEC("fexit/do_mkdirat")
int BPF_PROG(after_mkdir, int at, void *name, umode_t mode, int result) {
    return finish_followed(KIND_CREATE, result);
}

SEC("lsm/path_mknod")
int BPF_PROG(on_mknod, const struct path *directory, struct dentry *dentry, umode_t mode, unsigned int device) {
    struct follow *follow = followed_for(KIND_CREATE);
    struct pending *pending = follow ? begin(KIND_CREATE, follow, sizeof(struct event_create)) : NULL;
    if (!pending)
        return 0;
    struct event_create *create = (struct event_create *)pending->record;
    create->mode = mode;
    create->spare = 0;
    create->event.text[0] = path_in((char *)(create + 1), directory, dentry);
    return 0;
}

/* A Unix socket's name comes by bind(2), and that is told as such. */
SEC("fexit/do_mknodat")
int BPF_PROG(after_mknod, int at, void *name, umode_t mode, unsigned int device, int result) {
    return finish_followed(KIND_CREATE, result);
}

static __always_inline int on_removal(const struct path *directory, struct dentry *dentry, bool of_directory) {
    struct follow *follow = followed_for(KIND_UNLINK);
    struct pending *pending = follow ? begin(KIND_UNLINK, follow, sizeof(struct event_unlink)) : NULL;
    if (!pending)
        return 0;
    struct event_unlink *unlink = (struct event_unlink *)pending->record;
    unlink->directory = of_directory;
    unlink->spare = 0;
    unlink->event.text[0] = path_in((char *)(unlink + 1), directory, dentry);
    return 0;
}

SEC("lsm/path_unlink")
int BPF_PROG(on_unlink, const struct path *directory, struct dentry *dentry) {
    return on_removal(directory, dentry, false);
}

SEC("fexit/do_unlinkat")
int BPF_PROG(after_unlink, int at, void *name, int result) {
    return finish_followed(KIND_UNLINK, result);
}

SEC("lsm/path_rmdir")
int BPF_PROG(on_rmdir, const struct path *directory, struct dentry *dentry) {
    return on_removal(directory, dentry, true);
}

SEC("fexit/do_rmdir")
int BPF_PROG(after_rmdir, int at, void *name, int result) {
    return finish_followed(KIND_UNLINK, result);
}

SEC("lsm/path_rename")
int BPF_PROG(on_rename, const struct path *from, struct dentry *old, const struct path *to, struct dentry *new,
             unsigned int flags) {
    struct follow *follow = followed_for(KIND_RENAME);
    struct pending *pending = follow ? begin(KIND_RENAME, follow, sizeof(struct event_rename)) : NULL;
    if (!pending)
        return 0;
    struct event_rename *rename = (struct event_rename *)pending->record;
    rename->flags = flags;
    rename->spare = 0;
    char *text = (char *)(rename + 1);
    __u32 length = BOUND(path_in(text, from, old), TEXT_MAX - 1);
    rename->event.text[0] = length;
    rename->event.text[1] = path_in(text + length, to, new);
    return 0;
}

SEC("fexit/do_renameat2")
int BPF_PROG(after_rename, int from_at, void *from, int to_at, void *to, unsigned int flags, int result) {
    return finish_followed(KIND_RENAME, result);
}

SEC("lsm/path_chmod")
int BPF_PROG(on_chmod, const struct path *path, umode_t mode) {
    struct follow *follow = followed_for(KIND_CHMOD);
    struct pending *pending = follow ? begin(KIND_CHMOD, follow, sizeof(struct event_chmod)) : NULL;
    if (!pending)
        return 0;
    struct event_chmod *chmod = (struct event_chmod *)pending->record;
    chmod->mode = mode;
    chmod->spare = 0;
    chmod->event.text[0] = path_of((char *)(chmod + 1), path);
    return 0;
}

SEC("fexit/chmod_common")
int BPF_PROG(after_chmod, const struct path *path, umode_t mode, int result) {
    return finish_followed(KIND_CHMOD, result);
}

/* What is linked to comes without the mount that it was found by; but a link never leaves one. */
SEC("lsm/path_link")
int BPF_PROG(on_link, struct dentry *old, const struct path *directory, struct dentry *dentry) {
    struct follow *follow = followed_for(KIND_LINK);
    struct pending *pending = follow ? begin(KIND_LINK, follow, sizeof(struct event_link)) : NULL;
    if (!pending)
        return 0;
    struct event_link *link = (struct event_link *)pending->record;
    link->symbolic = 0;
    link->spare = 0;
    char *text = (char *)(link + 1);
    __u32 length = BOUND(path_beside(text, text + TEXT_MAX, directory, old), TEXT_MAX - 1);
    link->event.text[0] = length;
    link->event.text[1] = path_in(text + length, directory, dentry);
    return 0;
}

SEC("fexit/do_linkat")
int BPF_PROG(after_link, int from_at, void *from, int to_at, void *to, int flags, int result) {
    return finish_followed(KIND_LINK, result);
}

SEC("lsm/path_symlink")
int BPF_PROG(on_symlink, const struct path *directory, struct dentry *dentry, const char *target) {
    struct follow *follow = followed_for(KIND_LINK);
    struct pending *pending = follow ? begin(KIND_LINK, follow, sizeof(struct event_link)) : NULL;
    if (!pending)
        return 0;
    struct event_link *link = (struct event_link *)pending->record;
    link->symbolic = 1;
    link->spare = 0;
    char *text = (char *)(link + 1);
    __u32 length = BOUND(copy_text(text, TEXT_MAX, target), TEXT_MAX - 1);
    link->event.text[0] = length;
    link->event.text[1] = path_in(text + length, directory, dentry);
    return 0;
}

SEC("fexit/do_symlinkat")
int BPF_PROG(after_symlink, void *target, int at, void *name, int result) {
    return finish_followed(KIND_LINK, result);
}
