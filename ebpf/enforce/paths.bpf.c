/* Files: by their path as the sandbox sees it, by what they are (a device), and by what they are on the machine whatever
 * name leads there. What cannot be looked at is denied.
 */
#include "../kfuncs.h"
#include "guest.h"

#define MNT_INTERNAL 0x4000
#define MNT_NS_INTERNAL ((void *)-22l)
#define PATH_BYTES 4096
#define SLOTS 64
#define TRIES 8
#define DEPTH_MAX 64
#define PATH_PREFIX_BITS (8 * (sizeof(struct path_key) - sizeof(__u32)))

/* Room for a path, taken for the time of one look: a program may be preempted by one that looks, too. */
struct slot {
    __u32 taken;
    struct {
        __u32 prefixlen;
        __u16 set;
        __u8 act;
        __u8 spare;
        char path[PATH_BYTES];
    } key; /* begins as struct path_key does */
    struct event_denied record;
    char text[TEXT_MAX];
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, SLOTS);
    __type(key, __u32);
    __type(value, struct slot);
} enforce_slots SEC(".maps");

static __always_inline struct slot *take_slot(void) {
    __u32 first = bpf_get_smp_processor_id() * TRIES;
    for (__u32 i = 0; i < TRIES; i++) {
        __u32 key = (first + i) % SLOTS;
        struct slot *slot = bpf_map_lookup_elem(&enforce_slots, &key);
        if (slot && !__sync_lock_test_and_set(&slot->taken, 1))
            return slot;
    }
    return NULL;
}

static __always_inline void give_back(struct slot *slot) {
    __sync_lock_test_and_set(&slot->taken, 0);
}

/* All that follow return the number of the rule that denies, or this. */
#define ALLOWED RULES

static __always_inline __u32 by_path(struct slot *slot, __u32 set, __u32 act) {
    slot->key.prefixlen = PATH_PREFIX_BITS;
    slot->key.set = set;
    slot->key.act = act;
    slot->key.spare = 0;
    struct verdict *verdict = bpf_map_lookup_elem(&enforce_paths, &slot->key);
    return verdict && verdict->deny ? verdict->rule : ALLOWED;
}

/* By the acts (1 << ACT_…) that one set forbids. */
static __always_inline __u32 by_set(struct slot *slot, __u32 set, __u32 acts) {
    __u32 rule = ALLOWED;
    if (acts & 1 << ACT_OPEN)
        rule = by_path(slot, set, ACT_OPEN);
    if (rule == ALLOWED && acts & 1 << ACT_WRITE)
        rule = by_path(slot, set, ACT_WRITE);
    if (rule == ALLOWED && acts & 1 << ACT_EXECUTE)
        rule = by_path(slot, set, ACT_EXECUTE);
    return rule;
}

static __always_inline __u32 by_sets(struct slot *slot, const struct guest *guest, __u32 acts) {
    __u32 rule = by_set(slot, 0, acts);
    if (rule != ALLOWED || !guest->set)
        return rule;
    return is_known(guest->set) ? by_set(slot, guest->set, acts) : RULE_ACT;
}

/* The nearest that a rule names of the file and the directories above it, up to the root of its file system, decides. */
static __always_inline __u32 by_host(struct dentry *dentry, __u32 device) {
    if (!bpf_map_lookup_elem(&enforce_host_devices, &device))
        return ALLOWED;
    for (int i = 0; i < DEPTH_MAX; i++) {
        struct inode *inode = dentry->d_inode;
        struct dentry *parent = dentry->d_parent;
        struct host_key key = {.inode = inode ? inode->i_ino : 0, .device = device};
        struct verdict *verdict = bpf_map_lookup_elem(&enforce_hosts, &key);
        if (verdict)
            return verdict->deny ? verdict->rule : ALLOWED;
        if (parent == dentry)
            return ALLOWED;
        dentry = parent;
    }
    return RULE_UNREADABLE;
}

static __always_inline __u32 by_device(struct inode *inode) {
    umode_t type = inode->i_mode & S_IFMT;
    __u32 device = inode->i_rdev;
    if (type == S_IFBLK || (type == S_IFCHR && !bpf_map_lookup_elem(&enforce_devices, &device)))
        return RULE_DEVICE;
    return ALLOWED;
}

/* `inode` NULL: what it is does not matter, only how it is called. */
static __always_inline int judge(struct path *path, struct inode *inode, const struct guest *guest, enum hook hook,
                                 __u32 acts) {
    struct slot *slot = take_slot();
    if (!slot)
        return deny(hook, RULE_UNREADABLE);
    long length = bpf_d_path(path, slot->key.path, sizeof(slot->key.path));
    __u32 rule = length < 0 ? RULE_UNREADABLE : by_sets(slot, guest, acts);
    if (rule == ALLOWED && inode)
        rule = by_device(inode);
    if (rule == ALLOWED && inode)
        rule = by_host(path->dentry, inode->i_sb->s_dev);
    if (rule != ALLOWED) {
        struct event_denied *record = &slot->record;
        count_hit(rule);
        __builtin_memset(record, 0, sizeof(*record));
        length = bpf_d_path(path, slot->text, sizeof(slot->text));
        tell_text(record, hook, length > 0 ? length - 1 : 0, sizeof(slot->text));
    }
    give_back(slot);
    return rule == ALLOWED ? 0 : -EPERM;
}

static __always_inline __u32 acts_of(struct file *file) {
    bool writes = file->f_mode & FMODE_WRITE || file->f_flags & O_TRUNC;
    return 1 << ACT_OPEN | (writes ? 1 << ACT_WRITE : 0);
}

/* What an overlay opens, by a name that nobody ever said, for a file that has been judged. It has a mount of its own to
 * do so, in no namespace; those of pipes and the like are marked. */
static __always_inline bool is_overlays(struct file *file) {
    struct vfsmount *mount = file->f_path.mnt;
    return !(mount->mnt_flags & MNT_INTERNAL) && MOUNT_OF(mount)->mnt_ns == MNT_NS_INTERNAL;
}

SEC("lsm/file_open")
int BPF_PROG(enforce_file_open, struct file *file) {
    struct guest guest;
    if (!is_guest(&guest) || is_overlays(file))
        return 0;
    return judge(&file->f_path, file->f_inode, &guest, ON_FILE_OPEN, acts_of(file));
}

/* A descriptor that comes over a Unix socket, or from another process. */
SEC("lsm/file_receive")
int BPF_PROG(enforce_file_receive, struct file *file) {
    struct guest guest;
    if (!is_guest(&guest))
        return 0;
    return judge(&file->f_path, file->f_inode, &guest, ON_FILE_OPEN, acts_of(file));
}

/* truncate(2) writes without opening. */
SEC("lsm/path_truncate")
int BPF_PROG(enforce_path_truncate, struct path *path) {
    struct guest guest;
    if (!is_guest(&guest))
        return 0;
    return judge(path, path->dentry->d_inode, &guest, ON_FILE_OPEN, 1 << ACT_OPEN | 1 << ACT_WRITE);
}

/* Of a script, for the script and for its interpreter. */
SEC("lsm/bprm_check_security")
int BPF_PROG(enforce_exec, struct linux_binprm *bprm) {
    struct guest guest;
    if (!is_guest(&guest))
        return 0;
    return judge(&bprm->file->f_path, NULL, &guest, ON_EXEC, 1 << ACT_EXECUTE);
}

/* Code that is mapped: so the dynamic linker, called as a program, executes nothing that may not be. */
SEC("lsm/mmap_file")
int BPF_PROG(enforce_mmap, struct file *file, unsigned long wanted, unsigned long protection, unsigned long flags) {
    struct guest guest;
    if (!(protection & PROT_EXEC) || !is_guest(&guest))
        return 0;
    /* The verifier believes that there always is a file and would take a comparison out: so compare a pointer of which
     * it believes nothing. */
    struct file *there = READ_AS(struct file, file);
    if (!there)
        return 0;
    return judge(&file->f_path, NULL, &guest, ON_EXEC, 1 << ACT_EXECUTE);
}
