/* What both XDP programs share: counters, and how fast packets may come. clawos/monitor/enforce.py writes the layouts of
 * keys and values; a test compares the two by BTF.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IP_OFFSET 0x1fff
#define IP_MORE 0x2000
#define TRIES 4

/* What became of a packet. Up to the first drop: passed. */
enum count {
    PASSED_ARP, /* and what else the policy lets pass by its Ethernet type alone */
    PASSED_RULE,
    PASSED_ICMP,
    PASSED_REPLY,
    PASSED_FRAGMENT,
    DROPPED_MALFORMED,
    DROPPED_TYPE,
    DROPPED_PROTOCOL,
    DROPPED_FRAGMENT,
    DROPPED_PORT,
    DROPPED_RATE,
    COUNTS,
};

struct packets {
    __u64 packets;
    __u64 bytes;
};

/* A rate as the time that one packet takes, and how much of it may be ahead of the clock: the burst. */
struct pace {
    __u64 packet_ns;
    __u64 burst_ns;
};

char LICENSE[] SEC("license") = "GPL";

static __always_inline void count_packet(void *counters, __u32 which, __u64 bytes) {
    struct packets *count = bpf_map_lookup_elem(counters, &which);
    if (count) {
        count->packets++;
        count->bytes += bytes;
    }
}

/* `ahead` is when the packets so far will have been due. Two processors may meet here: who loses tries again. */
static __always_inline bool is_too_fast(__u64 *ahead, const struct pace *pace) {
    for (int i = 0; i < TRIES; i++) {
        __u64 now = bpf_ktime_get_ns(), before = *(volatile __u64 *)ahead, due = before > now ? before : now;
        if (due - now > pace->burst_ns)
            return true;
        if (__sync_val_compare_and_swap(ahead, before, due + pace->packet_ns) == before)
            return false;
    }
    return true;
}
