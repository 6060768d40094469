/* Sockets: of which families there may be any, and with which addresses. The kernel has copied an address before it
 * asks: what is judged is what is used.
 */
#include "../kfuncs.h"
#include "guest.h"

#define AF_UNSPEC 0
#define ADDRESS_PREFIX_BITS (8 * (sizeof(struct address_key) - sizeof(__u32)))
#define IPV4_BYTES 8 /* of struct sockaddr_in, as far as the address goes */
#define IPV6_BYTES 24

static __always_inline struct verdict *by_port(struct address_key *key, __u16 port) {
    key->prefixlen = ADDRESS_PREFIX_BITS;
    key->port = port;
    return bpf_map_lookup_elem(&enforce_addresses, key);
}

static __always_inline bool is_denied_by(struct address_key *key, __u32 set, __u16 port, __u32 *rule) {
    key->set = set;
    struct verdict *verdict = by_port(key, port);
    if (!verdict)
        verdict = by_port(key, 0);
    if (!verdict)
        return false;
    *rule = verdict->rule;
    return verdict->deny;
}

/* Puts the address into both. False: it is none of the internet's. */
static __always_inline bool read_address(const void *address, int family, int length, struct address_key *key,
                                         struct address *told) {
    told->family = family;
    if (family == AF_INET) {
        struct sockaddr_in *in = READ_AS(struct sockaddr_in, address);
        __u32 bits = in->sin_addr.s_addr;
        told->port = in->sin_port;
        key->address[10] = key->address[11] = 0xff;
        __builtin_memcpy(&key->address[12], &bits, sizeof(bits));
        __builtin_memcpy(&told->bytes, &bits, sizeof(bits));
        return true;
    }
    if (family == AF_INET6) {
        struct sockaddr_in6 *in = READ_AS(struct sockaddr_in6, address);
        told->port = in->sin6_port;
        for (int i = 0; i < 16; i++)
            told->bytes[i] = key->address[i] = in->sin6_addr.in6_u.u6_addr8[i];
        return true;
    }
    return false;
}

static __always_inline int judge(const void *address, int length, const struct guest *guest, enum direction direction) {
    struct address_key key = {.direction = direction};
    struct event_denied record = {};
    struct sockaddr *any = READ_AS(struct sockaddr, address);
    __u32 rule = RULE_ACT;
    int family = any->sa_family;
    /* Where IPv4 takes an address without a family, it takes it for one of its own. */
    if (family == AF_UNSPEC)
        family = AF_INET;
    if (family != AF_INET && family != AF_INET6)
        return 0;
    if (length < (family == AF_INET ? IPV4_BYTES : IPV6_BYTES))
        return 0; /* refused by the protocol, too short for an address */
    read_address(address, family, length, &key, &record.address);
    bool is_denied = is_denied_by(&key, 0, record.address.port, &rule);
    if (!is_denied && guest->set) {
        rule = RULE_ACT;
        is_denied = !is_known(guest->set) || is_denied_by(&key, guest->set, record.address.port, &rule);
    }
    if (!is_denied)
        return 0;
    count_hit(rule);
    tell(&record, direction == TO_BIND ? ON_BIND : ON_CONNECT);
    return -EPERM;
}

SEC("lsm/socket_connect")
int BPF_PROG(enforce_connect, struct socket *socket, struct sockaddr *address, int length) {
    struct guest guest;
    if (!is_guest(&guest))
        return 0;
    if (address->sa_family == AF_UNSPEC)
        return 0; /* takes a connection back */
    return judge(address, length, &guest, TO_CONNECT);
}

SEC("lsm/socket_bind")
int BPF_PROG(enforce_bind, struct socket *socket, struct sockaddr *address, int length) {
    struct guest guest;
    if (!is_guest(&guest))
        return 0;
    return judge(address, length, &guest, TO_BIND);
}

/* sendto(2) names an address without connecting to it. */
SEC("lsm/socket_sendmsg")
int BPF_PROG(enforce_sendmsg, struct socket *socket, struct msghdr *message, int size) {
    struct guest guest;
    void *address = message->msg_name;
    if (!address || !is_guest(&guest))
        return 0;
    return judge(address, message->msg_namelen, &guest, TO_CONNECT);
}

SEC("lsm/socket_create")
int BPF_PROG(enforce_socket, int family, int type, int protocol, int kernel) {
    struct guest guest;
    struct set *first = set_of(0);
    if (kernel || !is_guest(&guest))
        return 0;
    struct set *second = guest.set ? set_of(guest.set) : first;
    if (first && second && second->known && family >= 0 && family < 64 &&
        first->families & second->families & 1ull << family)
        return 0;
    struct event_denied record = {.address.family = family};
    count_hit(RULE_FAMILY);
    tell(&record, ON_SOCKET);
    return -EPERM;
}
