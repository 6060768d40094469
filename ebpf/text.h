/* Paths and other text of the kernel's, written behind a record's fixed part. */
#pragma once
#include "events.h"
#include "kfuncs.h"

#define NAME_BYTES 257 /* a slash or an end, and NAME_MAX */
#define DIRECTORY_MAX (TEXT_MAX - NAME_BYTES)

/* Copy a text of the kernel's, 511 bytes of it at most. Returns its length. */
static __always_inline __u32 copy_text(char *to, __u32 size, const void *from) {
    static const char format[] = "%s";
    __u64 arguments[] = {(__u64)from};
    long length = bpf_snprintf(to, size, format, arguments, sizeof(arguments));
    return length <= 0 ? 0 : length > size ? size - 1 : length - 1;
}

/* The path of what is to be in a directory, or was. Where the directory's is too long, the name alone. Returns the
 * length. Only for LSM programs. */
static __always_inline __u32 path_in(char *to, const struct path *directory, struct dentry *dentry) {
    int length = bpf_path_d_path(directory, to, DIRECTORY_MAX);
    __u32 at = length > 1 && length <= DIRECTORY_MAX ? length - 1 : 0;
    at = BOUND(at, TEXT_MAX - 1);
    if (at > 1) /* not the root itself, which ends with its slash */
        to[at++] = '/';
    return at + copy_text(to + at, NAME_BYTES, dentry->d_name.name);
}

#define DEPTH_MAX 32

/* The path of what is in the same mount as a directory, known only by its dentry: the way up from there is walked, and
 * what leads to the mount is the directory's path less its own way. Where that does not work, the name alone. `room`
 * has TEXT_MAX bytes and is left in disorder. */
static __always_inline __u32 path_beside(char *to, char *room, const struct path *directory, struct dentry *dentry) {
    struct dentry *root = directory->mnt->mnt_root, *above = directory->dentry;
    int length = bpf_path_d_path(directory, to, DIRECTORY_MAX);
    length = length == 2 ? 0 : length - 1; /* the root's has a slash and no name */
    for (int i = 0; i < DEPTH_MAX && above != root; i++) {
        length -= 1 + above->d_name.len;
        above = above->d_parent;
    }
    __u32 at = TEXT_MAX - 1;
    struct dentry *up = dentry;
    room[at] = 0;
    for (int i = 0; i < DEPTH_MAX && up != root; i++) {
        char behind = room[BOUND(at, TEXT_MAX - 1)];
        __u32 name = BOUND(at - up->d_name.len, TEXT_MAX - 1);
        copy_text(room + name, NAME_BYTES, up->d_name.name);
        room[BOUND(at, TEXT_MAX - 1)] = behind; /* in place of the name's end */
        at = BOUND(name - 1, TEXT_MAX - 1);
        room[at] = '/';
        up = up->d_parent;
    }
    if (above != root || up != root || length < 0)
        return copy_text(to, NAME_BYTES, dentry->d_name.name);
    __u32 prefix = BOUND(length, TEXT_MAX - 1);
    return prefix + copy_text(to + prefix, NAME_BYTES * 2, room + at);
}

/* The path of a file that has one already. */
static __always_inline __u32 path_of(char *to, const struct path *path) {
    int length = bpf_path_d_path(path, to, TEXT_MAX);
    if (length > 0)
        return length - 1;
    return copy_text(to, NAME_BYTES, path->dentry->d_name.name);
}
