/* Where records with texts are put together: too large for a program's stack. A few places on each processor, for an
 * interrupt, another task or a program that sleeps may come between.
 */
#pragma once
#include "emit.h"

#define PLACES 4
#define FIXED_MAX 256
#define RECORD_MAX (FIXED_MAX + 2 * TEXT_MAX + 512) /* the verifier sees a name behind the longest path */

struct scratch {
    __u32 busy;
    __u32 spare;
    char record[RECORD_MAX];
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, PLACES);
    __type(key, __u32);
    __type(value, struct scratch);
} scratches SEC(".maps") __weak;

/* A place for a record of this kind, with its head filled; NULL, and counted, where all are taken. */
static __always_inline struct scratch *take_scratch(enum kind kind, const struct follow *follow) {
    for (__u32 i = 0; i < PLACES; i++) {
        __u32 key = i; /* not i itself: the verifier does not count what is in memory */
        struct scratch *scratch = bpf_map_lookup_elem(&scratches, &key);
        if (scratch && !__sync_val_compare_and_swap(&scratch->busy, 0, 1)) {
            fill((struct event *)scratch->record, kind, follow);
            return scratch;
        }
    }
    lose(kind);
    return NULL;
}

static __always_inline void give_back(struct scratch *scratch) {
    __sync_lock_test_and_set(&scratch->busy, 0);
}

/* Hand the record over: `fixed` bytes, then its texts. */
static __always_inline void emit_scratch(struct scratch *scratch, enum kind kind, __u32 fixed) {
    struct event *event = (struct event *)scratch->record;
    __u32 size = fixed + BOUND(event->text[0], TEXT_MAX - 1) + BOUND(event->text[1], TEXT_MAX - 1);
    emit(event, kind, size);
    give_back(scratch);
}
