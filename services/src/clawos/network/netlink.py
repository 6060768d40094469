"""Requests to the kernel over netlink: pyroute2 writes the messages, this sends them and reads the answers.

pyroute2's own sockets are for programs that live in one namespace. Here each sandbox's part goes over a
socket that was opened in it and handed to us, for an instant. And of the library only the messages are there
(`image/dependencies`): a half of the time and a third of the memory.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
from collections.abc import Sequence
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, nlmsg

_KERNEL = (0, 0)
_ANSWER = struct.Struct("=IHHIIi")
"""struct nlmsghdr, and the error that follows it."""
_ERROR = 2  # NLMSG_ERROR, of which 0 is success
_ANSWER_BYTES = 65536


def request(message: nlmsg, kind: int, how: int = 0, **fields: Any) -> nlmsg:
    """Fill a message in. `how`: NLM_F_…; `attrs` are its attributes."""
    for name, value in fields.items():
        message[name] = value
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | how
    return message


def send(route: socket.socket, messages: Sequence[nlmsg]) -> None:
    """Have the kernel carry them out, one after the other. Raises OSError with the first that failed.

    To the kernel by its address, and not by default: then what counts is what we may do in the socket's
    namespace, and whoever opened it needs no capability there.
    """
    first = secrets.randbits(31)  # nobody who held the socket before has answers to these lying about
    data = b""
    for number, message in enumerate(messages, first):
        message["header"]["sequence_number"] = number
        message.encode()
        data += bytes(message.data)
    route.sendto(data, socket.MSG_DONTWAIT, _KERNEL)
    waiting = set(range(first, first + len(messages)))
    failed: dict[int, int] = {}
    while waiting:
        # The kernel is done when sendto returns: what is not here now will not come.
        answers, (sender, _) = route.recvfrom(_ANSWER_BYTES, socket.MSG_DONTWAIT)[:2]
        while len(answers) >= _ANSWER.size and sender == 0:
            length, kind, _, number, _, error = _ANSWER.unpack_from(answers)
            if kind == _ERROR and number in waiting:
                waiting.discard(number)
                if error:
                    failed[number] = -error
            answers = answers[max(length, _ANSWER.size) + 3 & ~3 :]
    if failed:
        number = failed[min(failed)]
        raise OSError(number, os.strerror(number))
