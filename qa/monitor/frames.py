"""Ethernet frames and what the XDP programs make of each. Read by the tests, and in the guest."""

from __future__ import annotations

import socket
import struct

COUNTS = (
    "passed type",
    "passed rule",
    "passed icmp",
    "passed reply",
    "passed fragment",
    "dropped malformed",
    "dropped type",
    "dropped protocol",
    "dropped fragment",
    "dropped port",
    "dropped rate",
)
PROXY = "198.19.255.1"
SYN, ACK = 2, 16


def ethernet(kind: int, payload: bytes) -> bytes:
    return bytes(6) + b"\2\0\0\0\0\1" + struct.pack("!H", kind) + payload


def ipv4(protocol: int, payload: bytes, to: str = PROXY, fragment: int = 0, version: int = 0x45) -> bytes:
    length = 20 + len(payload)
    head = struct.pack("!BBHHHBBH", version, 0, length, 1, fragment, 64, protocol, 0)
    return ethernet(0x0800, head + socket.inet_aton("198.18.0.1") + socket.inet_aton(to) + payload)


def ipv6(protocol: int, payload: bytes) -> bytes:
    addresses = bytes(15) + b"\1" + bytes(15) + b"\2"
    return ethernet(0x86DD, struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload)


def tcp(port: int, flags: int = SYN, source: int = 40000) -> bytes:
    return struct.pack("!HHIIBBHHH", source, port, 0, 0, 5 << 4, flags, 1024, 0, 0)


def udp(port: int, source: int = 40000) -> bytes:
    return struct.pack("!HHHH", source, port, 8, 0)


EGRESS = {
    "ARP": (ethernet(0x0806, bytes(28)), "passed type"),
    "proxy": (ipv4(6, tcp(8118)), "passed rule"),
    "proxy, with options": (
        ethernet(
            0x0800,
            struct.pack("!BBHHHBBH", 0x46, 0, 44, 1, 0, 64, 6, 0)
            + socket.inet_aton("198.18.0.1")
            + socket.inet_aton(PROXY)
            + bytes(4)
            + tcp(8118),
        ),
        "passed rule",
    ),
    "another port": (ipv4(6, tcp(80)), "dropped port"),
    "another address": (ipv4(6, tcp(8118), to="169.254.169.254"), "dropped port"),
    "datagram": (ipv4(17, udp(8118)), "dropped protocol"),
    "ICMP": (ipv4(1, bytes(8)), "dropped protocol"),
    "fragment": (ipv4(6, tcp(8118), fragment=0x2000), "dropped fragment"),
    "later fragment": (ipv4(6, tcp(8118), fragment=4), "dropped fragment"),
    "IPv6": (ipv6(6, tcp(8118)), "dropped type"),
    "VLAN": (ethernet(0x8100, bytes(50)), "dropped type"),
    "cut TCP": (ipv4(6, tcp(8118)[:12]), "dropped malformed"),
    "no version": (ipv4(6, tcp(8118), version=0x05), "dropped malformed"),
    "short head": (ipv4(6, tcp(8118), version=0x41), "dropped malformed"),
}
UPLINK = {
    "ARP": (ethernet(0x0806, bytes(28)), "passed type"),
    "802.1X": (ethernet(0x888E, bytes(46)), "passed type"),
    "LLDP": (ethernet(0x88CC, bytes(46)), "dropped type"),
    "TCP answer": (ipv4(6, tcp(40000, ACK, 443)), "passed reply"),
    "TCP accepted": (ipv4(6, tcp(40000, SYN | ACK, 443)), "passed reply"),
    "TCP from outside": (ipv4(6, tcp(22)), "dropped port"),
    "TCP from outside, IPv6": (ipv6(6, tcp(22)), "dropped port"),
    "TCP answer, IPv6": (ipv6(6, tcp(40000, ACK, 443)), "passed reply"),
    "DNS answer": (ipv4(17, udp(40000, 53)), "passed reply"),
    "DHCP": (ipv4(17, udp(68, 67)), "passed rule"),
    "DHCPv6": (ipv6(17, udp(546, 547)), "passed rule"),
    "datagram from outside": (ipv4(17, udp(161)), "dropped port"),
    "echo": (ipv4(1, bytes(8)), "passed icmp"),
    "neighbour": (ipv6(58, bytes(24)), "passed icmp"),
    "multicast listener": (ipv6(0, bytes([58, 0, 5, 2, 0, 0, 1, 0]) + bytes(24)), "passed icmp"),
    "later fragment": (ipv4(17, bytes(64), fragment=4), "passed fragment"),
    "later fragment, IPv6": (ipv6(44, bytes([17, 0, 0, 8, 0, 0, 0, 1]) + bytes(64)), "passed fragment"),
    "GRE": (ipv4(47, bytes(24)), "dropped protocol"),
    "headers without end": (ipv6(60, bytes([60, 0, 0, 0, 0, 0, 0, 0]) * 8), "dropped protocol"),
    "cut UDP": (ipv4(17, udp(68)[:4]), "dropped malformed"),
    "cut head": (ethernet(0x86DD, bytes(10)), "dropped malformed"),
}

FRAMES = {"egress_xdp": EGRESS, "uplink_xdp": UPLINK}
