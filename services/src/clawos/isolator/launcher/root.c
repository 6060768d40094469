/* Builds the sandbox's root: a fresh tmpfs with what the plan lists, then pivot_root. Runs in its init. */
#define _GNU_SOURCE
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

/* Open a path below `from` without following a link anywhere on the way: neither a user's home nor a race
 * outside can lead us elsewhere. Not openat2, which the unit's RestrictSUIDSGID= blocks. */
static int walk(int from, const char *path, int parent_only, const char **last) {
    int at = openat(from, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (const char *part = path + 1; at >= 0 && *part;) {
        size_t length = strcspn(part, "/");
        if (parent_only && !part[length]) {
            *last = part;
            return at;
        }
        char name[256];
        memcpy(name, part, length);
        name[length] = 0;
        int next = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        struct stat status;
        if (next >= 0 && (fstat(next, &status) || S_ISLNK(status.st_mode))) {
            close(next);
            next = -1;
            errno = ELOOP;
        }
        int saved = errno;
        close(at);
        errno = saved;
        at = next;
        part += length + (part[length] == '/');
    }
    return at;
}

void root_pin_sources(struct plan *plan) {
    int outside = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (outside < 0)
        refuse("bind-source");
    for (size_t i = 0; i < plan->operation_count; i++) {
        struct operation *operation = &plan->operations[i];
        if (operation->kind != KIND_BIND)
            continue;
        operation->source = walk(outside, operation->text, 0, NULL);
        if (operation->source < 0)
            refuse("bind-source");
    }
    close(outside);
}

static void set_attributes(int fd, const char *path, unsigned flags, uint64_t set, const char *step) {
    struct mount_attr attributes = {.attr_set = set, .propagation = MS_PRIVATE};
    if (syscall(SYS_mount_setattr, fd, path, flags, &attributes, sizeof attributes))
        refuse(step);
}

static uint64_t attributes_of(uint32_t flags) {
    return MOUNT_ATTR_NOSUID | (flags & MOUNT_WRITE ? 0 : MOUNT_ATTR_RDONLY) |
           (flags & MOUNT_EXEC ? 0 : MOUNT_ATTR_NOEXEC) | (flags & MOUNT_DEV ? 0 : MOUNT_ATTR_NODEV);
}

static void attach(int tree, int root, const char *path, const char *step) {
    int target = walk(root, path, 0, NULL);
    if (target < 0)
        refuse(step);
    if (syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
        refuse(step);
    close(target);
    close(tree);
}

static int new_file_system(const char *type, const char *const options[][2], uint64_t attributes, const char *step) {
    int context = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
    if (context < 0)
        refuse(step);
    for (size_t i = 0; options && options[i][0]; i++)
        if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, options[i][0], options[i][1], 0))
            refuse(step);
    if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
        refuse(step);
    int tree = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
    if (tree < 0)
        refuse(step);
    close(context);
    return tree;
}

static int new_tmpfs(uint64_t bytes, const char *mode, uint64_t attributes) {
    char size[32], inodes[32];
    snprintf(size, sizeof size, "%llu", (unsigned long long)bytes);
    /* One inode for each 4 KiB: a flood of empty files ends where a flood of bytes does. */
    snprintf(inodes, sizeof inodes, "%llu", (unsigned long long)(bytes / 4096 + 64));
    const char *const options[][2] = {{"size", size}, {"nr_inodes", inodes}, {"mode", mode}, {NULL, NULL}};
    return new_file_system("tmpfs", options, attributes, "tmpfs");
}

static void write_file(int parent, const char *name, const struct operation *operation) {
    int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, operation->flags);
    if (fd < 0)
        refuse("file");
    for (size_t done = 0; done < operation->data_size;) {
        ssize_t written = write(fd, operation->data + done, operation->data_size - done);
        if (written <= 0)
            refuse("file");
        done += (size_t)written;
    }
    close(fd);
}

static void carry_out(const struct operation *operation, int root) {
    const char *name = NULL;
    int tree, parent = -1;
    if (operation->kind == KIND_DIR || operation->kind == KIND_FILE || operation->kind == KIND_LINK) {
        parent = walk(root, operation->path, 1, &name);
        if (parent < 0 || !name)
            refuse("root");
    }
    switch (operation->kind) {
    case KIND_DIR:
        if (mkdirat(parent, name, operation->flags))
            refuse("dir");
        break;
    case KIND_FILE:
        write_file(parent, name, operation);
        break;
    case KIND_LINK:
        if (symlinkat(operation->text, parent, name))
            refuse("link");
        break;
    case KIND_BIND:
        /* Recursive, for the kernel refuses to uncover what a mount below hides; so are the attributes. */
        tree = (int)syscall(SYS_open_tree, operation->source, "",
                            AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (tree < 0)
            refuse("bind");
        set_attributes(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, attributes_of(operation->flags), "bind");
        attach(tree, root, operation->path, "bind");
        close(operation->source);
        break;
    case KIND_TMPFS:
        attach(new_tmpfs(operation->number, "1777", attributes_of(operation->flags)), root, operation->path, "tmpfs");
        break;
    case KIND_PROC:
        tree = new_file_system("proc", NULL, attributes_of(0), "proc");
        attach(tree, root, operation->path, "proc");
        break;
    default:
        break;
    }
    if (parent >= 0)
        close(parent);
}

void root_build(struct plan *plan) {
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        refuse("propagation");
    /* Any directory will do as the place to stand; it is covered only in this mount namespace. */
    int host_tmp = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int tree = new_tmpfs(plan->root_bytes, "0755", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (host_tmp < 0 ||
        syscall(SYS_move_mount, tree, "", host_tmp, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH))
        refuse("root");
    close(host_tmp);
    for (size_t i = 0; i < plan->operation_count; i++)
        carry_out(&plan->operations[i], tree);
    set_attributes(tree, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY, "root-read-only");
    if (fchdir(tree) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        refuse("pivot-root");
    close(tree);
}
