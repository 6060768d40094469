/* Kernel modules: checked and in place; next the kernel runs it. */
#include "../emit.h"

SEC("tp_btf/module_load")
int BPF_PROG(on_module, struct module *module) {
    struct follow *follow;
    if (!is_recorded(KIND_MODULE, &follow))
        return 0;
    struct event_module event = {};
    fill(&event.event, KIND_MODULE, follow);
    for (int i = 0; i < sizeof(event.name); i++)
        event.name[i] = module->name[i];
    emit(&event.event, KIND_MODULE, sizeof(event));
    return 0;
}
