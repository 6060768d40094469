/* On the segment's end of each sandbox's link (pinned as egress_xdp, attached by clawos-network): what the sandbox sends
 * is ARP, or TCP to what is listed, which is the egress service; all else ends here, before any of the kernel's network.
 */
#include "xdp.h"

#define RULES 64
#define LINKS 4096 /* four times as many as there may be */

struct egress_key {
    __be32 address;
    __be16 port;
    __u16 spare;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, RULES);
    __type(key, struct egress_key);
    __type(value, __u32);
} egress_rules SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct pace);
} egress_pace SEC(".maps");

/* Of each link, by the index of its interface. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, LINKS);
    __type(key, __u32);
    __type(value, __u64);
} egress_ahead SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, COUNTS);
    __type(key, __u32);
    __type(value, struct packets);
} egress_counts SEC(".maps");

static __always_inline bool is_over_pace(__u32 link) {
    __u32 key = 0;
    __u64 first = 0;
    struct pace *pace = bpf_map_lookup_elem(&egress_pace, &key);
    __u64 *ahead = bpf_map_lookup_elem(&egress_ahead, &link);
    if (!ahead) {
        bpf_map_update_elem(&egress_ahead, &link, &first, BPF_NOEXIST);
        ahead = bpf_map_lookup_elem(&egress_ahead, &link);
    }
    return !pace || !ahead || is_too_fast(ahead, pace);
}

static __always_inline enum count judge(struct xdp_md *packet) {
    void *start = (void *)(long)packet->data, *end = (void *)(long)packet->data_end;
    struct ethhdr *ethernet = start;
    struct iphdr *ip = (void *)(ethernet + 1);
    if ((void *)(ethernet + 1) > end)
        return DROPPED_MALFORMED;
    if (is_over_pace(packet->ingress_ifindex))
        return DROPPED_RATE;
    if (ethernet->h_proto == bpf_htons(ETH_P_ARP))
        return PASSED_ARP;
    if (ethernet->h_proto != bpf_htons(ETH_P_IP))
        return DROPPED_TYPE;
    if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
        return DROPPED_MALFORMED;
    if (ip->protocol != IPPROTO_TCP)
        return DROPPED_PROTOCOL;
    if (ip->frag_off & bpf_htons(IP_OFFSET | IP_MORE))
        return DROPPED_FRAGMENT;
    struct tcphdr *tcp = (void *)ip + ip->ihl * 4;
    if ((void *)(tcp + 1) > end)
        return DROPPED_MALFORMED;
    struct egress_key key = {.address = ip->daddr, .port = tcp->dest};
    return bpf_map_lookup_elem(&egress_rules, &key) ? PASSED_RULE : DROPPED_PORT;
}

SEC("xdp")
int egress_xdp(struct xdp_md *packet) {
    enum count what = judge(packet);
    count_packet(&egress_counts, what, packet->data_end - packet->data);
    return what < DROPPED_MALFORMED ? XDP_PASS : XDP_DROP;
}
