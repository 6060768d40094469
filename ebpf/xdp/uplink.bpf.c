/* On the machine's uplink (pinned as uplink_xdp, attached by clawos-uplink@.service): what may come in. An appliance asks
 * and gets answers; it serves nobody but on the ports that the policy names.
 *
 * No connections are tracked here: that is the kernel's, behind this. A TCP packet other than the first of a connection
 * passes, and so does UDP to a port that the kernel picks for those who ask.
 */
#include "xdp.h"

#define RULES 256
#define TYPES 16
#define NEXT_HEADERS_MAX 6

struct uplink_key {
    __be16 port;
    __u8 protocol;
    __u8 is_source; /* the port that it comes from */
};

struct uplink_settings {
    struct pace pace;     /* of what is not an answer: taken together */
    __u16 ephemeral_low;  /* /proc/sys/net/ipv4/ip_local_port_range */
    __u16 ephemeral_high;
    __u32 spare;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, RULES);
    __type(key, struct uplink_key);
    __type(value, __u32);
} uplink_rules SEC(".maps");

/* Ethernet types that pass as they are; IPv4 and IPv6 never do. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, TYPES);
    __type(key, __be16);
    __type(value, __u16);
} uplink_types SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct uplink_settings);
} uplink_settings SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} uplink_ahead SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, COUNTS);
    __type(key, __u32);
    __type(value, struct packets);
} uplink_counts SEC(".maps");

static __always_inline bool has_rule(__u8 protocol, __be16 port, bool is_source) {
    struct uplink_key key = {.port = port, .protocol = protocol, .is_source = is_source};
    return bpf_map_lookup_elem(&uplink_rules, &key);
}

static __always_inline enum count judge_tcp(struct tcphdr *tcp, void *end) {
    if ((void *)(tcp + 1) > end)
        return DROPPED_MALFORMED;
    if (!tcp->syn || tcp->ack)
        return PASSED_REPLY;
    return has_rule(IPPROTO_TCP, tcp->dest, false) ? PASSED_RULE : DROPPED_PORT;
}

static __always_inline enum count judge_udp(struct udphdr *udp, void *end, const struct uplink_settings *settings) {
    if ((void *)(udp + 1) > end)
        return DROPPED_MALFORMED;
    __u16 port = bpf_ntohs(udp->dest);
    if (has_rule(IPPROTO_UDP, udp->dest, false) || has_rule(IPPROTO_UDP, udp->source, true))
        return PASSED_RULE;
    return port >= settings->ephemeral_low && port <= settings->ephemeral_high ? PASSED_REPLY : DROPPED_PORT;
}

static __always_inline enum count judge_next(__u8 protocol, void *next, void *end,
                                             const struct uplink_settings *settings) {
    switch (protocol) {
    case IPPROTO_TCP:
        return judge_tcp(next, end);
    case IPPROTO_UDP:
        return judge_udp(next, end, settings);
    case IPPROTO_ICMP:
    case IPPROTO_ICMPV6:
    case IPPROTO_IGMP:
        return PASSED_ICMP;
    }
    return has_rule(protocol, 0, false) ? PASSED_RULE : DROPPED_PROTOCOL;
}

static __always_inline enum count judge_ipv4(struct iphdr *ip, void *end, const struct uplink_settings *settings) {
    if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
        return DROPPED_MALFORMED;
    if (ip->frag_off & bpf_htons(IP_OFFSET))
        return PASSED_FRAGMENT; /* it comes to nothing without the first, which is judged */
    return judge_next(ip->protocol, (void *)ip + ip->ihl * 4, end, settings);
}

struct ipv6_extension {
    __u8 next;
    __u8 length; /* beyond the first 8 bytes, in eights */
    __be16 offset; /* of a fragment */
    __be32 spare;
};

static __always_inline enum count judge_ipv6(struct ipv6hdr *ip, void *end, const struct uplink_settings *settings) {
    if ((void *)(ip + 1) > end || ip->version != 6)
        return DROPPED_MALFORMED;
    __u8 protocol = ip->nexthdr;
    void *next = ip + 1;
    for (int i = 0; i < NEXT_HEADERS_MAX; i++) {
        struct ipv6_extension *extension = next;
        bool is_fragment = protocol == IPPROTO_FRAGMENT;
        if (!is_fragment && protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_ROUTING && protocol != IPPROTO_DSTOPTS)
            return judge_next(protocol, next, end, settings);
        if ((void *)(extension + 1) > end)
            return DROPPED_MALFORMED;
        if (is_fragment && extension->offset & bpf_htons(0xfff8))
            return PASSED_FRAGMENT;
        protocol = extension->next;
        next += is_fragment ? sizeof(*extension) : (extension->length + 1) * 8;
    }
    return DROPPED_PROTOCOL;
}

static __always_inline enum count judge(struct xdp_md *packet) {
    void *start = (void *)(long)packet->data, *end = (void *)(long)packet->data_end;
    struct ethhdr *ethernet = start;
    __u32 key = 0;
    struct uplink_settings *settings = bpf_map_lookup_elem(&uplink_settings, &key);
    __u64 *ahead = bpf_map_lookup_elem(&uplink_ahead, &key);
    if (!settings || !ahead || (void *)(ethernet + 1) > end)
        return DROPPED_MALFORMED;
    __be16 type = ethernet->h_proto;
    enum count what;
    if (type == bpf_htons(ETH_P_IP))
        what = judge_ipv4((void *)(ethernet + 1), end, settings);
    else if (type == bpf_htons(ETH_P_IPV6))
        what = judge_ipv6((void *)(ethernet + 1), end, settings);
    else
        what = bpf_map_lookup_elem(&uplink_types, &type) ? PASSED_ARP : DROPPED_TYPE;
    if (what < DROPPED_MALFORMED && what != PASSED_REPLY && is_too_fast(ahead, &settings->pace))
        return DROPPED_RATE;
    return what;
}

SEC("xdp")
int uplink_xdp(struct xdp_md *packet) {
    enum count what = judge(packet);
    count_packet(&uplink_counts, what, packet->data_end - packet->data);
    return what < DROPPED_MALFORMED ? XDP_PASS : XDP_DROP;
}
