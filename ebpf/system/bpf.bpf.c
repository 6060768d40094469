/* bpf(2), once it is granted: what makes or changes programs, maps and links, and what gets hold of those of others.
 * Reading and writing of map elements, iterating and asking for information are daily business of who holds a map.
 */
#include "../emit.h"

#define BIT(command) (1ull << (command))
#define DAILY                                                                                                         \
    (BIT(BPF_MAP_LOOKUP_ELEM) | BIT(BPF_MAP_UPDATE_ELEM) | BIT(BPF_MAP_DELETE_ELEM) | BIT(BPF_MAP_GET_NEXT_KEY) |    \
     BIT(BPF_OBJ_GET) | BIT(BPF_PROG_GET_NEXT_ID) | BIT(BPF_MAP_GET_NEXT_ID) | BIT(BPF_OBJ_GET_INFO_BY_FD) |         \
     BIT(BPF_PROG_QUERY) | BIT(BPF_TASK_FD_QUERY) | BIT(BPF_MAP_LOOKUP_AND_DELETE_ELEM) | BIT(BPF_MAP_FREEZE) |      \
     BIT(BPF_BTF_GET_NEXT_ID) | BIT(BPF_MAP_LOOKUP_BATCH) | BIT(BPF_MAP_LOOKUP_AND_DELETE_BATCH) |                   \
     BIT(BPF_MAP_UPDATE_BATCH) | BIT(BPF_MAP_DELETE_BATCH) | BIT(BPF_LINK_GET_NEXT_ID) | BIT(BPF_ENABLE_STATS))

SEC("fexit/security_bpf")
int BPF_PROG(after_bpf, int command, union bpf_attr *attributes, unsigned int size, int result) {
    struct follow *follow;
    if (result || (command >= 0 && command < 64 && BIT(command) & DAILY) || !is_recorded(KIND_BPF, &follow))
        return 0;
    struct event_bpf event = {.command = command};
    fill(&event.event, KIND_BPF, follow);
    if (command == BPF_PROG_LOAD)
        for (int i = 0; i < sizeof(event.name); i++)
            event.name[i] = attributes->prog_name[i];
    else if (command == BPF_MAP_CREATE)
        for (int i = 0; i < sizeof(event.name); i++)
            event.name[i] = attributes->map_name[i];
    emit(&event.event, KIND_BPF, sizeof(event));
    return 0;
}
