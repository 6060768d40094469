/* Questions to name servers: what goes out by UDP to port 53. Seen as it is handed over, whatever becomes of it. Its
 * bytes are the sender's, who may have written anything: user space reads them.
 */
#include "address.h"

#define DNS_PORT 53
#define QUESTION_MAX 512
#define IPPROTO_UDP 17

/* Of several pieces, the first: what no name server's client does is cut short. */
static __always_inline const void *first_piece(struct iov_iter *iter, __u64 *size) {
    if (iter->iter_type == ITER_UBUF) {
        *size = iter->count;
        return (const char *)iter->__ubuf_iovec.iov_base + iter->iov_offset;
    }
    if (iter->iter_type == ITER_IOVEC) {
        const struct iovec *first = READ_AS(struct iovec, iter->__iov);
        *size = first->iov_len;
        return first->iov_base;
    }
    return NULL; /* the kernel's own */
}

SEC("lsm.s/socket_sendmsg")
int BPF_PROG(on_send, struct socket *socket, struct msghdr *message, int size) {
    struct follow follow;
    struct sock *sk = socket->sk;
    if (!is_followed() || !sk || sk->sk_protocol != IPPROTO_UDP || !copy_follow(&follow) || !records(&follow, KIND_DNS))
        return 0;
    struct address server = {};
    if (message->msg_name)
        put_given(&server, READ_AS(struct __kernel_sockaddr_storage, message->msg_name));
    else
        put_peer(&server, sk);
    __u64 length = 0;
    const void *from = first_piece(&message->msg_iter, &length);
    if (server.port != DNS_PORT || !from)
        return 0;
    struct scratch *scratch = take_scratch(KIND_DNS, &follow);
    if (!scratch)
        return 0;
    struct event_dns *dns = (struct event_dns *)scratch->record;
    dns->server = server;
    __u32 copied = length < QUESTION_MAX ? length : QUESTION_MAX;
    if (bpf_copy_from_user(dns + 1, BOUND(copied, 2 * QUESTION_MAX - 1), from))
        copied = 0;
    dns->event.text[0] = copied;
    emit_scratch(scratch, KIND_DNS, sizeof(*dns));
    return 0;
}
