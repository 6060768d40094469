/* Life cycle of processes: made, ended. Recorded once it has happened. */
#include "../emit.h"

SEC("tp_btf/task_newtask")
int BPF_PROG(on_newtask, struct task_struct *child, unsigned long flags) {
    struct follow *follow;
    if (flags & CLONE_THREAD || child->flags & PF_KTHREAD)
        return 0;
    if (is_recorded(KIND_FORK, &follow)) {
        struct event_fork event = {};
        fill(&event.event, KIND_FORK, follow);
        event.child_tgid = child->tgid;
        event.child_start_ns = child->start_boottime;
        emit(&event.event, KIND_FORK, sizeof(event));
    }
    if (flags & CLONE_NAMESPACES && is_recorded(KIND_NAMESPACE, &follow)) {
        struct event_namespace event = {.flags = flags & CLONE_NAMESPACES, .how = BY_CLONE};
        fill(&event.event, KIND_NAMESPACE, follow);
        emit(&event.event, KIND_NAMESPACE, sizeof(event));
    }
    return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task) {
    struct signal_struct *signal = task->signal;
    struct follow *follow;
    if (signal->live.counter || task->flags & PF_KTHREAD || !is_recorded(KIND_EXIT, &follow))
        return 0;
    /* As wait(2) tells: what ended the group, else the status of its leader. */
    __u32 status = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : task->group_leader->exit_code;
    struct event_exit event = {.code = status >> 8 & 0xff, .signal = status & 0x7f};
    fill(&event.event, KIND_EXIT, follow);
    emit(&event.event, KIND_EXIT, sizeof(event));
    return 0;
}
