/* Memory that is writable and executable at once, made so or mapped so. */
#include "../emit.h"

#define BOTH (PROT_WRITE | PROT_EXEC)
#define ERRORS (-4095ul)

static __always_inline int tell_memory(__u64 address, __u64 size) {
    struct follow *follow = followed_for(KIND_MPROTECT);
    if (!follow)
        return 0;
    struct event_mprotect event = {.address = address, .size = size};
    fill(&event.event, KIND_MPROTECT, follow);
    emit(&event.event, KIND_MPROTECT, sizeof(event));
    return 0;
}

SEC("fexit/do_mprotect_pkey")
int BPF_PROG(after_mprotect, unsigned long start, size_t size, unsigned long protection, int key, int result) {
    return (protection & BOTH) != BOTH || result ? 0 : tell_memory(start, size);
}

SEC("fexit/vm_mmap_pgoff")
int BPF_PROG(after_mmap, struct file *file, unsigned long address, unsigned long size, unsigned long protection,
             unsigned long flags, unsigned long offset, unsigned long result) {
    return (protection & BOTH) != BOTH || result >= ERRORS ? 0 : tell_memory(result, size);
}
