/* Namespaces made and entered, once it is done; those that come with a new process are in life.bpf.c. */
#include "../emit.h"

static __always_inline int tell_namespaces(__u32 flags, __u32 how) {
    struct follow *follow;
    if (!is_recorded(KIND_NAMESPACE, &follow))
        return 0;
    struct event_namespace event = {.flags = flags, .how = how};
    fill(&event.event, KIND_NAMESPACE, follow);
    emit(&event.event, KIND_NAMESPACE, sizeof(event));
    return 0;
}

SEC("fexit/ksys_unshare")
int BPF_PROG(after_unshare, unsigned long flags, int result) {
    return result || !(flags & CLONE_NAMESPACES) ? 0 : tell_namespaces(flags & CLONE_NAMESPACES, BY_UNSHARE);
}

SEC("fexit/" SYSCALL("setns"))
int BPF_PROG(after_setns, const struct pt_regs *registers, long result) {
    return result ? 0 : tell_namespaces(SYSCALL_ARGUMENT_2(registers) & CLONE_NAMESPACES, BY_SETNS);
}
