/* Sockets made, bound, connected, listening, accepting. All once it has happened; a connect that was refused, too. */
#include "address.h"

#define FAMILY_BYTES 2

SEC("lsm/socket_post_create")
int BPF_PROG(on_socket, struct socket *socket, int family, int type, int protocol, int in_kernel) {
    struct follow *follow = followed_for(KIND_SOCKET);
    if (!follow || in_kernel)
        return 0;
    struct event_socket event = {.family = family, .type = type, .protocol = protocol};
    fill(&event.event, KIND_SOCKET, follow);
    emit(&event.event, KIND_SOCKET, sizeof(event));
    return 0;
}

SEC("fexit/__sys_connect_file")
int BPF_PROG(after_connect, struct file *file, struct __kernel_sockaddr_storage *given, int length, int flags,
             int result) {
    struct follow *follow = followed_for(KIND_CONNECT);
    struct scratch *scratch = follow ? take_scratch(KIND_CONNECT, follow) : NULL;
    if (!scratch)
        return 0;
    struct event_connect *connect = (struct event_connect *)scratch->record;
    struct socket *socket = READ_AS(struct socket, file->private_data);
    connect->address = (struct address){};
    connect->error = -result;
    connect->type = socket->type;
    put_given(&connect->address, given);
    if (connect->address.family == AF_UNIX)
        connect->event.text[0] = put_unix((char *)(connect + 1), given->__data, length - FAMILY_BYTES);
    emit_scratch(scratch, KIND_CONNECT, sizeof(*connect));
    return 0;
}

static __always_inline __u32 put_own_unix(char *to, struct sock *sk) {
    struct unix_address *address = READ_AS(struct unix_sock, sk)->addr;
    return put_unix(to, (const char *)address->name + FAMILY_BYTES, address->len - FAMILY_BYTES);
}

/* As it is now: with the port that was chosen for port 0. */
static __always_inline int tell_bind(struct socket *socket, int result) {
    struct follow *follow = followed_for(KIND_BIND);
    struct scratch *scratch = follow && !result ? take_scratch(KIND_BIND, follow) : NULL;
    if (!scratch)
        return 0;
    struct event_bind *bind = (struct event_bind *)scratch->record;
    bind->address = (struct address){};
    put_own(&bind->address, socket->sk);
    if (bind->address.family == AF_UNIX)
        bind->event.text[0] = put_own_unix((char *)(bind + 1), socket->sk);
    emit_scratch(scratch, KIND_BIND, sizeof(*bind));
    return 0;
}

static __always_inline int tell_listen(struct socket *socket, int backlog, int result) {
    struct follow *follow = followed_for(KIND_LISTEN);
    struct scratch *scratch = follow && !result ? take_scratch(KIND_LISTEN, follow) : NULL;
    if (!scratch)
        return 0;
    struct event_listen *listen = (struct event_listen *)scratch->record;
    listen->address = (struct address){};
    listen->backlog = backlog;
    listen->spare = 0;
    put_own(&listen->address, socket->sk);
    if (listen->address.family == AF_UNIX)
        listen->event.text[0] = put_own_unix((char *)(listen + 1), socket->sk);
    emit_scratch(scratch, KIND_LISTEN, sizeof(*listen));
    return 0;
}

/* By family, for the common way to them is inlined where it is used: there is nothing to attach to. */
#define AFTER_BIND(function)                                                                                          \
    SEC("fexit/" #function)                                                                                           \
    int BPF_PROG(after_##function, struct socket *socket, void *given, int length, int result) {                      \
        return tell_bind(socket, result);                                                                             \
    }
#define AFTER_LISTEN(function)                                                                                        \
    SEC("fexit/" #function)                                                                                           \
    int BPF_PROG(after_##function, struct socket *socket, int backlog, int result) {                                  \
        return tell_listen(socket, backlog, result);                                                                  \
    }

AFTER_BIND(inet_bind)
AFTER_BIND(inet6_bind)
AFTER_BIND(unix_bind)
AFTER_LISTEN(inet_listen)
AFTER_LISTEN(unix_listen)

static __always_inline int tell_accept(struct socket *listener, struct socket *accepted) {
    struct follow *follow = followed_for(KIND_ACCEPT);
    struct scratch *scratch = follow ? take_scratch(KIND_ACCEPT, follow) : NULL;
    if (!scratch)
        return 0;
    struct event_accept *accept = (struct event_accept *)scratch->record;
    accept->address = (struct address){};
    put_peer(&accept->address, accepted->sk);
    if (accept->address.family == AF_UNIX)
        accept->event.text[0] = put_own_unix((char *)(accept + 1), listener->sk);
    emit_scratch(scratch, KIND_ACCEPT, sizeof(*accept));
    return 0;
}

SEC("fexit/inet_accept")
int BPF_PROG(after_accept, struct socket *listener, struct socket *accepted, void *argument, int result) {
    return result ? 0 : tell_accept(listener, accepted);
}

SEC("fexit/unix_accept")
int BPF_PROG(after_unix_accept, struct socket *listener, struct socket *accepted, void *argument, int result) {
    return result ? 0 : tell_accept(listener, accepted);
}
