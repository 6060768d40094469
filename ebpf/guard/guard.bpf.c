/* Who may change what the kernel runs of eBPF. Once it is armed: PID 1, for the filters of its units, and nobody else;
 * our own programs, their links, pins and maps not even that one. Nothing disarms it but a reboot: the map that says so
 * is frozen.
 */
#include "../emit.h"
#include "../kfuncs.h"

#define EPERM 1
#define MS_MOVE 8192u
#define MNT_DETACH 2
#define BPF_FS_MAGIC 0xcafe4a11ul
#define SYSFS_MAGIC 0x62656572ul
#define DEPTH_MAX 8
#define MAPS_MAX 64
#define PARENTS_MAX 64
#define NOBODY 0xffffffffu

struct guard {
    __u32 armed;
    __u32 device; /* of the BPF file system with our pins, and their directory in it */
    __u64 directory;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct guard);
} guard SEC(".maps");

/* Our maps, by id: the one user who may open it to write, besides root, who could become him. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, MAPS_MAX);
    __type(key, __u32);
    __type(value, __u32);
} guard_maps SEC(".maps");

static __always_inline struct guard *armed(void) {
    __u32 key = 0;
    struct guard *found = bpf_map_lookup_elem(&guard, &key);
    return found && found->armed ? found : NULL;
}

static __always_inline bool is_init(void) {
    return bpf_get_current_pid_tgid() >> 32 == 1;
}

static __always_inline int refuse(enum hook hook, __u32 command) {
    struct event_denied record = {};
    fill(&record.event, KIND_DENIED, followed());
    record.hook = hook;
    record.error = EPERM;
    record.address.port = __builtin_bswap16(command); /* as all ports are told */
    emit(&record.event, KIND_DENIED, sizeof(record));
    return -EPERM;
}

/* What looks, and what a map's descriptor is needed for, which guard_map() gives or not. Making a map changes nothing
 * that runs; systemd does so outside PID 1, for RestrictFileSystems=. */
#define MAY(command) (1ull << (command))
static const __u64 anybodys =
    MAY(BPF_MAP_CREATE) | MAY(BPF_MAP_LOOKUP_ELEM) | MAY(BPF_MAP_UPDATE_ELEM) | MAY(BPF_MAP_DELETE_ELEM) |
    MAY(BPF_MAP_GET_NEXT_KEY) | MAY(BPF_OBJ_GET) | MAY(BPF_PROG_GET_NEXT_ID) | MAY(BPF_MAP_GET_NEXT_ID) |
    MAY(BPF_PROG_GET_FD_BY_ID) | MAY(BPF_MAP_GET_FD_BY_ID) | MAY(BPF_OBJ_GET_INFO_BY_FD) | MAY(BPF_PROG_QUERY) |
    MAY(BPF_BTF_GET_FD_BY_ID) | MAY(BPF_TASK_FD_QUERY) | MAY(BPF_MAP_LOOKUP_AND_DELETE_ELEM) | MAY(BPF_MAP_FREEZE) |
    MAY(BPF_BTF_GET_NEXT_ID) | MAY(BPF_MAP_LOOKUP_BATCH) | MAY(BPF_MAP_LOOKUP_AND_DELETE_BATCH) |
    MAY(BPF_MAP_UPDATE_BATCH) | MAY(BPF_MAP_DELETE_BATCH) | MAY(BPF_LINK_GET_FD_BY_ID) | MAY(BPF_LINK_GET_NEXT_ID);

SEC("lsm/bpf")
int BPF_PROG(guard_bpf, int command, union bpf_attr *attributes, unsigned int size) {
    if (!armed() || is_init() || (command >= 0 && command < 64 && anybodys & MAY(command)))
        return 0;
    return refuse(ON_BPF, command);
}

/* A new descriptor of a map. */
SEC("lsm/bpf_map")
int BPF_PROG(guard_map, struct bpf_map *map, unsigned int mode) {
    __u32 id = map->id;
    if (!(mode & FMODE_WRITE) || !armed())
        return 0;
    __u32 *user = bpf_map_lookup_elem(&guard_maps, &id);
    __u32 ours = bpf_get_current_uid_gid();
    if (!user || (*user != NOBODY && (*user == ours || ours == 0)))
        return 0;
    return refuse(ON_BPF, BPF_OBJ_GET);
}

static __always_inline bool is_ours(struct dentry *dentry) {
    struct guard *state = armed();
    struct super_block *file_system = dentry->d_sb;
    if (!state || file_system->s_magic != BPF_FS_MAGIC || file_system->s_dev != state->device)
        return false;
    for (int i = 0; i < DEPTH_MAX; i++) {
        struct inode *inode = dentry->d_inode;
        struct dentry *parent = dentry->d_parent;
        if (inode && inode->i_ino == state->directory)
            return true;
        if (parent == dentry)
            return false;
        dentry = parent;
    }
    return false;
}

SEC("lsm/inode_unlink")
int BPF_PROG(guard_unlink, struct inode *directory, struct dentry *entry) {
    return is_ours(entry) ? refuse(ON_PIN, 0) : 0;
}

SEC("lsm/inode_rmdir")
int BPF_PROG(guard_rmdir, struct inode *directory, struct dentry *entry) {
    return is_ours(entry) ? refuse(ON_PIN, 0) : 0;
}

SEC("lsm/inode_rename")
int BPF_PROG(guard_rename, struct inode *from, struct dentry *entry, struct inode *to, struct dentry *target) {
    return is_ours(entry) || is_ours(target) ? refuse(ON_PIN, 0) : 0;
}

/* Owner and mode, which say who may open a pin. */
struct mnt_idmap;
struct iattr;

SEC("lsm/inode_setattr")
int BPF_PROG(guard_setattr, struct mnt_idmap *map, struct dentry *entry, struct iattr *attributes) {
    return is_ours(entry) ? refuse(ON_PIN, 0) : 0;
}

/* PID 1, found from the current task upwards. */
static __always_inline struct task_struct *init_of(struct task_struct *task) {
    for (int i = 0; i < PARENTS_MAX; i++) {
        if (task->tgid == 1)
            return task;
        task = task->real_parent;
    }
    return NULL;
}

/* What the pins lie on, in the mount namespace that the machine runs in: /sys and its root. Elsewhere are copies, whose
 * end takes no pin along. */
static __always_inline bool bears_pins(struct vfsmount *mount) {
    struct task_struct *task = bpf_get_current_task_btf(), *init = init_of(task);
    if (!init)
        return true;
    if (task->nsproxy->mnt_ns->ns.inum != init->nsproxy->mnt_ns->ns.inum)
        return false;
    return mount->mnt_sb->s_magic == SYSFS_MAGIC || init->fs->root.mnt == mount;
}

/* Not one that is made just now, by open_tree(2) or fsmount(2), and is not in place. */
static __always_inline bool is_in_place(struct vfsmount *mount) {
    struct mount *whole = MOUNT_OF(mount);
    return whole->mnt_parent != whole;
}

static __always_inline bool is_pins(struct vfsmount *mount, const struct guard *state) {
    struct super_block *file_system = mount->mnt_sb;
    return file_system->s_magic == BPF_FS_MAGIC && file_system->s_dev == state->device;
}

/* With the last mount of a BPF file system its pins go: it stays, and what it is mounted on, /sys and the root, is neither
 * taken away with all that lies on it nor moved to where it could be. */
SEC("lsm/sb_umount")
int BPF_PROG(guard_umount, struct vfsmount *mount, int flags) {
    struct guard *state = armed();
    if (!state)
        return 0;
    return is_pins(mount, state) || (flags & MNT_DETACH && bears_pins(mount)) ? refuse(ON_PIN, 0) : 0;
}

SEC("lsm/move_mount")
int BPF_PROG(guard_move_mount, struct path *from, struct path *to) {
    struct guard *state = armed();
    if (!state)
        return 0;
    return (is_pins(from->mnt, state) || bears_pins(from->mnt)) && is_in_place(from->mnt) ? refuse(ON_PIN, 0) : 0;
}

SEC("lsm/sb_mount")
int BPF_PROG(guard_mount, const char *device, struct path *path, const char *type, unsigned long flags, void *data) {
    if (!(flags & MS_MOVE))
        return 0;
    struct task_struct *task = bpf_get_current_task_btf(), *init = init_of(task);
    if (!armed() || is_init())
        return 0;
    return !init || task->nsproxy->mnt_ns->ns.inum == init->nsproxy->mnt_ns->ns.inum ? refuse(ON_PIN, 0) : 0;
}

/* Nobody takes hold of PID 1 to speak in its name. */
#define PTRACE_MODE_ATTACH 2u

SEC("lsm/ptrace_access_check")
int BPF_PROG(guard_ptrace, struct task_struct *target, unsigned int mode) {
    if (target->tgid != 1 || !(mode & PTRACE_MODE_ATTACH) || !armed())
        return 0;
    return refuse(ON_PTRACE, 0);
}
