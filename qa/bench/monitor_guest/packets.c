/* Packets a second over a pair of interfaces: `packets INTERFACE DESTINATION-MAC SOURCE DESTINATION PORT SECONDS`
 *
 * Sends small UDP packets as fast as it goes through a packet socket, past the queueing discipline; prints how many.
 * The kernel's counters at the other end tell how many came.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define PAYLOAD 18 /* the smallest frame */

struct packet {
    struct ether_header ethernet;
    struct iphdr ip;
    struct udphdr udp;
    uint8_t payload[PAYLOAD];
} __attribute__((packed));

static void fail(const char *what) {
    fprintf(stderr, "packets: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint16_t checksum(const void *data, size_t size) {
    const uint16_t *word = data;
    uint32_t sum = 0;
    for (size_t i = 0; i < size / 2; i++)
        sum += word[i];
    sum = (sum & 0xffff) + (sum >> 16);
    return ~(sum + (sum >> 16));
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 7)
        return 2;
    int fd = socket(AF_PACKET, SOCK_RAW, 0), one = 1;
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(argv[1])};
    if (fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof(to)))
        fail(argv[1]);
    if (setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)))
        fail("PACKET_QDISC_BYPASS");
    struct ifreq own = {0};
    strncpy(own.ifr_name, argv[1], IFNAMSIZ - 1);
    if (ioctl(fd, SIOCGIFHWADDR, &own))
        fail("SIOCGIFHWADDR");
    struct packet packet = {
        .ethernet.ether_type = htons(ETHERTYPE_IP),
        .ip = {.version = 4,
               .ihl = 5,
               .ttl = 64,
               .protocol = IPPROTO_UDP,
               .tot_len = htons(sizeof(struct packet) - sizeof(struct ether_header)),
               .saddr = inet_addr(argv[3]),
               .daddr = inet_addr(argv[4])},
        .udp = {.source = htons(40000), .dest = htons(atoi(argv[5])), .len = htons(sizeof(struct udphdr) + PAYLOAD)},
    };
    uint8_t *mac = packet.ethernet.ether_dhost;
    if (sscanf(argv[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6)
        return 2;
    memcpy(packet.ethernet.ether_shost, own.ifr_hwaddr.sa_data, ETH_ALEN);
    packet.ip.check = checksum(&packet.ip, sizeof(packet.ip));
    struct iovec iov = {&packet, sizeof(packet)};
    struct mmsghdr batch[BATCH];
    for (int i = 0; i < BATCH; i++)
        batch[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
    double begin = now(), seconds = atof(argv[6]);
    uint64_t sent = 0;
    while (now() - begin < seconds) {
        int n = sendmmsg(fd, batch, BATCH, 0);
        if (n < 0 && errno != ENOBUFS && errno != EAGAIN)
            fail("sendmmsg");
        sent += n > 0 ? n : 0;
    }
    printf("{\"sent\": %llu, \"seconds\": %.3f}\n", (unsigned long long)sent, now() - begin);
    return 0;
}
