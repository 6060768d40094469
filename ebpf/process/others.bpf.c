/* What processes do to others: look into or change their memory, send signals. Recorded when it is granted. */
#include "../emit.h"

#define PTRACE_MODE_ATTACH 2u
#define PTRACE_TRACEME 0
#define ELSE (-1)

static __always_inline int tell_trace(__u32 target, __s32 request) {
    struct follow *follow;
    if (!is_recorded(KIND_PTRACE, &follow))
        return 0;
    struct event_ptrace event = {.target = target, .request = request};
    fill(&event.event, KIND_PTRACE, follow);
    emit(&event.event, KIND_PTRACE, sizeof(event));
    return 0;
}

/* ptrace(2), process_vm_writev(2), /proc/PID/mem and whatever else asks the same. To read what ps shows is less. */
SEC("fexit/security_ptrace_access_check")
int BPF_PROG(after_access_check, struct task_struct *target, unsigned int mode, int result) {
    if (result || !(mode & PTRACE_MODE_ATTACH))
        return 0;
    struct task_struct *task = bpf_get_current_task_btf();
    const struct pt_regs *registers = (const struct pt_regs *)bpf_task_pt_regs(task);
    bool by_ptrace = SYSCALL_NUMBER(registers) == NR_PTRACE;
    return tell_trace(target->tgid, by_ptrace ? (__s32)SYSCALL_ARGUMENT_1(registers) : ELSE);
}

SEC("fexit/security_ptrace_traceme")
int BPF_PROG(after_traceme, struct task_struct *parent, int result) {
    return result ? 0 : tell_trace(parent->tgid, PTRACE_TRACEME);
}

/* What processes send, not what the kernel does. Signal 0 only asks whether there is such a process. */
SEC("fexit/security_task_kill")
int BPF_PROG(after_kill, struct task_struct *target, void *info, int signal, const void *cred, int result) {
    struct follow *follow = followed_for(KIND_KILL);
    if (!follow || result || !signal)
        return 0;
    struct event_kill event = {.target = target->tgid, .signal = signal};
    fill(&event.event, KIND_KILL, follow);
    emit(&event.event, KIND_KILL, sizeof(event));
    return 0;
}
