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
    __u32 at = 0;
    if (length > 1 && length < DIRECTORY_MAX) {
        at = length - 1;
        if (at > 1) /* not the root itself, which ends with its slash */
            to[at++] = '/';
    }
    return at + copy_text(to + at, NAME_BYTES, dentry->d_name.name);
}

/* The path of a file that has one already. */
static __always_inline __u32 path_of(char *to, const struct path *path) {
    int length = bpf_path_d_path(path, to, TEXT_MAX);
    if (length > 0)
        return (length - 1) & (TEXT_MAX - 1);
    return copy_text(to, NAME_BYTES, path->dentry->d_name.name);
}
