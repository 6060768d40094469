/* The sandbox's root. What is the same from call to call is a read-only tree, built once, as a mount namespace that
 * the isolator keeps: a sandbox's own begins as its copy. What must be fresh, /proc and the memory file systems, is
 * mounted for each call.
 */
#define _GNU_SOURCE
#include "launch.h"

#include <linux/mount.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
/* Where to stand while a root is built: any directory that no plan names, for it is covered then, for us alone. */
#define STAND "/sys"

static int outside; /* the mount namespace we came with */

static int directory(const char *path) {
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Open a path without following a link anywhere on the way: neither a user's home nor a race outside can lead us
 * elsewhere. Not openat2, which the unit's RestrictSUIDSGID= blocks. */
static int walk(const char *path) {
    int at = directory("/");
    while (at >= 0 && *++path) {
        size_t length = strcspn(path, "/");
        char name[256] = "";
        memcpy(name, path, length);
        int next = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        struct stat found;
        if (next >= 0 && (fstat(next, &found) || S_ISLNK(found.st_mode))) {
            errno = ELOOP;
            refuse("bind-source");
        }
        if (next < 0)
            refuse("bind-source");
        close(at);
        at = next;
        path += length - (path[length] == 0);
    }
    return at;
}

static void set_attributes(int tree, unsigned flags, uint64_t set, const char *step) {
    struct mount_attr attributes = {.attr_set = set, .propagation = MS_PRIVATE};
    if (tree < 0 || syscall(SYS_mount_setattr, tree, "", flags | AT_EMPTY_PATH, &attributes, sizeof attributes))
        refuse(step);
}

static uint64_t attributes_of(uint32_t flags) {
    return MOUNT_ATTR_NOSUID | (flags & MOUNT_WRITE ? 0 : MOUNT_ATTR_RDONLY) |
           (flags & MOUNT_EXEC ? 0 : MOUNT_ATTR_NOEXEC) | (flags & MOUNT_DEV ? 0 : MOUNT_ATTR_NODEV);
}

static void attach(int tree, const char *path, const char *step) {
    if (syscall(SYS_move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH))
        refuse(step);
    close(tree);
}

static int clone_tree(int source, const char *step) {
    /* Recursive, for the kernel refuses to uncover what a mount below hides; so are the attributes set on it. */
    unsigned flags = AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    int tree = source < 0 ? -1 : (int)syscall(SYS_open_tree, source, "", flags);
    if (tree < 0)
        refuse(step);
    close(source);
    return tree;
}

static int new_file_system(const char *type, const char *const options[][2], uint64_t attributes) {
    int context = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
    if (context < 0)
        refuse(type);
    for (size_t i = 0; options && options[i][0]; i++)
        if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, options[i][0], options[i][1], 0))
            refuse(type);
    if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
        refuse(type);
    int tree = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
    if (tree < 0)
        refuse(type);
    close(context);
    return tree;
}

static int new_tmpfs(uint64_t bytes, const char *mode, uid_t uid, gid_t gid, uint64_t attributes) {
    char size[32], inodes[32], user[16], group[16];
    snprintf(size, sizeof size, "%llu", (unsigned long long)bytes);
    /* One inode for each 4 KiB: a flood of empty files ends where a flood of bytes does. */
    snprintf(inodes, sizeof inodes, "%llu", (unsigned long long)(bytes / 4096 + 64));
    snprintf(user, sizeof user, "%u", uid);
    snprintf(group, sizeof group, "%u", gid);
    const char *const options[][2] = {{"size", size}, {"nr_inodes", inodes}, {"mode", mode},
                                      {"uid", user},  {"gid", group},        {NULL, NULL}};
    return new_file_system("tmpfs", options, attributes);
}

static void write_file(const struct operation *operation) {
    int fd = open(operation->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, operation->flags);
    if (fd < 0 || write(fd, operation->text, operation->text_size) != (ssize_t)operation->text_size)
        refuse("file");
    close(fd);
}

/* In a builder, with the new root as our own: a link in it leads nowhere else. */
static void carry_out(const struct operation *operation, int tree) {
    switch (operation->kind) {
    case KIND_DIR:
        if (mkdir(operation->path, operation->flags))
            refuse("dir");
        break;
    case KIND_FILE:
        write_file(operation);
        break;
    case KIND_LINK:
        if (symlink(operation->text, operation->path))
            refuse("link");
        break;
    case KIND_BIND:
    case KIND_PROC:
        attach(tree, operation->path, operation->kind == KIND_BIND ? "bind" : "proc");
        break;
    default:
        break;
    }
}

/* A process's only task: to build a root as its mount namespace, and to hand that over. */
_Noreturn void root_build(const struct plan *plan, int proc) {
    static int trees[OPERATIONS_MAX];
    if (setns(outside, CLONE_NEWNS) || unshare(CLONE_NEWNS))
        refuse("mount-namespace");
    int namespace = openat(proc, "self/ns/mnt", O_RDONLY | O_CLOEXEC);
    for (size_t i = 0; i < plan->operation_count; i++) {
        const struct operation *operation = &plan->operations[i];
        if (operation->kind == KIND_BIND) {
            trees[i] = clone_tree(walk(operation->text), "bind");
            set_attributes(trees[i], AT_RECURSIVE, attributes_of(operation->flags), "bind");
        } else if (operation->kind == KIND_PROC) {
            trees[i] = clone_tree(directory(STAND), "proc");
        }
    }
    attach(new_tmpfs(plan->root_bytes, "0755", geteuid(), getegid(), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV), STAND,
           "root");
    if (chdir(STAND) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        refuse("pivot-root");
    for (size_t i = 0; i < plan->operation_count; i++)
        carry_out(&plan->operations[i], trees[i]);
    set_attributes(directory("/"), 0, MOUNT_ATTR_RDONLY, "root-read-only");
    if (namespace < 0 || send_descriptors(report_fd, &namespace, 1))
        refuse("root");
    _exit(0);
}

/* The kernel lets a user namespace mount its /proc only where a whole one shows already. So every root has one that
 * shows no process, of a pid namespace that has ended; each sandbox's own covers it. */
int root_open(void) {
    int status = 0, proc = new_file_system("proc", NULL, attributes_of(MOUNT_WRITE));
    long pid = clone_process(CLONE_NEWPID | CLONE_FILES, NULL, -1);
    if (pid == 0)
        _exit(new_file_system("proc", NULL, attributes_of(MOUNT_WRITE)));
    outside = openat(proc, "self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (pid < 0 || outside < 0 || waitpid((pid_t)pid, &status, 0) != pid || !WIFEXITED(status))
        refuse("proc");
    attach(WEXITSTATUS(status), STAND, "proc");
    return proc;
}

/* In a sandbox's init, which owns its namespaces: what is fresh for each call. */
void root_finish(const struct plan *plan) {
    for (size_t i = 0; i < plan->operation_count; i++) {
        const struct operation *operation = &plan->operations[i];
        if (operation->kind == KIND_TMPFS) {
            uint64_t attributes = attributes_of(operation->flags);
            attach(new_tmpfs(operation->number, "1777", plan->uid, plan->gid, attributes), operation->path, "tmpfs");
        } else if (operation->kind == KIND_PROC) {
            int tree = new_file_system("proc", NULL, attributes_of(MOUNT_WRITE));
            if (write_at(tree, "sys/user/max_user_namespaces", "0"))
                refuse("user-namespaces");
            set_attributes(tree, 0, MOUNT_ATTR_RDONLY, "proc");
            attach(tree, operation->path, "proc");
        }
    }
}
