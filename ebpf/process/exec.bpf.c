/* A program begins: past the point of no return, with the new credentials, the new name and the arguments in place. */
#include "../scratch.h"

#define LOW 0x7f7f7f7f7f7f7f7full
#define ONES 0x0101010101010101ull

static __always_inline __u32 zeros_in(__u64 word) {
    __u64 marks = ~(((word & LOW) + LOW) | word | LOW); /* 0x80 for each byte that is 0 */
    return (marks >> 7) * ONES >> 56;
}

struct scan {
    const char *text;
    __u32 size, count, seen, found, names;
};

/* The first eight letters are enough: nothing else in an environment begins so. */
#define EIGHT(s) \
    ((__u64)(s)[0] | (__u64)(s)[1] << 8 | (__u64)(s)[2] << 16 | (__u64)(s)[3] << 24 | (__u64)(s)[4] << 32 | \
     (__u64)(s)[5] << 40 | (__u64)(s)[6] << 48 | (__u64)(s)[7] << 56)

static __always_inline __u32 name_of(__u64 begin) {
    return begin == EIGHT("LD_PRELO")   ? EXEC_LD_PRELOAD
           : begin == EIGHT("LD_AUDIT") ? EXEC_LD_AUDIT
           : begin == EIGHT("LD_LIBRA") ? EXEC_LD_LIBRARY_PATH
           : begin == EIGHT("GLIBC_TU") ? EXEC_GLIBC_TUNABLES
                                        : 0;
}

static long scan_word(__u32 index, struct scan *scan) {
    __u32 at = BOUND(index * sizeof(__u64), ARGS_MAX - sizeof(__u64));
    if (at >= scan->size)
        return 1;
    __u64 word = *(const __u64 *)(scan->text + at);
    __u32 zeros = zeros_in(word);
    if (scan->seen + zeros < scan->count) {
        scan->seen += zeros;
        return 0;
    }
    for (__u32 i = 0; i < sizeof(__u64); i++) {
        if (word >> 8 * i & 0xff)
            continue;
        __u32 behind = at + i + 1;
        if (++scan->seen == scan->count)
            scan->found = behind;
        if (scan->seen >= scan->count && behind + sizeof(__u64) <= scan->size)
            scan->names |= name_of(*(const __u64 *)(scan->text + BOUND(behind, ARGS_MAX - 1)));
    }
    return 0;
}

/* Bytes of `count` strings at the beginning of `size`, 0 where they are not all there; and flags. Behind them is the
 * environment, of which only those names are told: its values are nobody's business. */
static __always_inline __u32 bytes_of(const char *text, __u32 size, __u32 count, __u32 *flags) {
    struct scan scan = {.text = text, .size = size, .count = count};
    bpf_loop(ARGS_MAX / sizeof(__u64), scan_word, &scan, 0);
    __u32 found = scan.found <= size ? scan.found : 0;
    *flags = scan.names | (found ? 0 : EXEC_ARGS_TRUNCATED);
    return found;
}

static __always_inline void name_ancestors(__u32 *to) {
    struct task_struct *task = bpf_get_current_task_btf();
    for (int i = 0; i < ANCESTORS; i++) {
        task = task->real_parent;
        to[i] = task->tgid;
    }
}

static __always_inline void read_arguments(struct event_exec *exec, struct linux_binprm *bprm) {
    __u32 at = BOUND(exec->event.text[0], TEXT_MAX - 1);
    char *to = (char *)(exec + 1) + at;
    __u64 behind = bprm->exec - bprm->p;
    __u32 size = behind < ARGS_MAX ? behind : ARGS_MAX;
    if (bpf_copy_from_user(to, BOUND(size, 2 * ARGS_MAX - 1), (const void *)bprm->p))
        size = 0;
    __u32 length = bytes_of(to, size, exec->argc, &exec->flags);
    exec->event.text[1] = length ?: size;
}

SEC("lsm.s/bprm_committed_creds")
int BPF_PROG(on_exec, struct linux_binprm *bprm) {
    struct follow follow;
    if (!(copy_follow(&follow) && follow.mask & 1ull << KIND_EXEC) && !is_everywhere(KIND_EXEC))
        return 0;
    struct scratch *scratch = take_scratch(KIND_EXEC, &follow);
    if (!scratch)
        return 0;
    struct event_exec *exec = (struct event_exec *)scratch->record;
    struct inode *inode = bprm->file->f_inode;
    exec->inode = inode->i_ino;
    exec->device = inode->i_sb->s_dev;
    exec->links = inode->i_nlink;
    exec->argc = bprm->argc;
    name_ancestors(exec->ancestors);
    long length = bpf_d_path(&bprm->file->f_path, (char *)(exec + 1), TEXT_MAX);
    if (length > 0)
        exec->event.text[0] = length - 1;
    read_arguments(exec, bprm);
    emit_scratch(scratch, KIND_EXEC, sizeof(*exec));
    return 0;
}
