/* Ends of connections as records have them. */
#pragma once
#include "../scratch.h"

#define UNIX_PATH_MAX 108
#define PORT_BYTES 2

static __always_inline void put_ipv4(struct address *to, __be32 address) {
    __builtin_memcpy(to->bytes, &address, sizeof(address));
}

static __always_inline void put_ipv6(struct address *to, const struct in6_addr *address) {
    for (int i = 0; i < 4; i++) {
        __be32 word = address->in6_u.u6_addr32[i];
        __builtin_memcpy(to->bytes + i * sizeof(word), &word, sizeof(word));
    }
}

static __always_inline __u16 from_wire(__u16 port) {
    return port >> 8 | port << 8;
}

/* Of a socket: its own end, or the other. */
static __always_inline void put_own(struct address *to, struct sock *sk) {
    to->family = sk->__sk_common.skc_family;
    to->port = sk->__sk_common.skc_num;
    if (to->family == AF_INET)
        put_ipv4(to, sk->__sk_common.skc_rcv_saddr);
    else if (to->family == AF_INET6)
        put_ipv6(to, &sk->__sk_common.skc_v6_rcv_saddr);
    else
        to->port = 0;
}

static __always_inline void put_peer(struct address *to, struct sock *sk) {
    to->family = sk->__sk_common.skc_family;
    to->port = from_wire(sk->__sk_common.skc_dport);
    if (to->family == AF_INET)
        put_ipv4(to, sk->__sk_common.skc_daddr);
    else if (to->family == AF_INET6)
        put_ipv6(to, &sk->__sk_common.skc_v6_daddr);
    else
        to->port = 0;
}

/* As a caller gave it, copied into the kernel. */
static __always_inline void put_given(struct address *to, const struct __kernel_sockaddr_storage *given) {
    to->family = given->ss_family;
    if (to->family != AF_INET && to->family != AF_INET6)
        return;
    to->port = from_wire(*(const __u16 *)&given->__data[0]);
    if (to->family == AF_INET) {
        put_ipv4(to, *(const __be32 *)&given->__data[PORT_BYTES]);
        return;
    }
    for (int i = 0; i < sizeof(to->bytes); i++) /* behind the flow label */
        to->bytes[i] = given->__data[PORT_BYTES + sizeof(__u32) + i];
}

/* The name of a Unix socket: `length` bytes at most, which need not end with a 0. @ stands for the 0 of an abstract
 * one. Returns the length. */
static __always_inline __u32 put_unix(char *to, const char *name, long length) {
    static const char format[] = "%s";
    if (length <= 0)
        return 0; /* none: it is anonymous */
    __u32 abstract = !name[0];
    __u64 arguments[] = {(__u64)name + abstract};
    to[0] = '@';
    long copied = bpf_snprintf(to + abstract, UNIX_PATH_MAX + 1, format, arguments, sizeof(arguments)) - 1;
    if (copied < 0)
        copied = 0;
    copied += abstract;
    return copied > length ? length : copied;
}
