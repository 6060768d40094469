"""The question in a message to a name server (RFC 1035): its bytes are whatever somebody sent there."""

from __future__ import annotations

import struct

_HEADER = struct.Struct(">HHHHHH")
_ANSWER = 1 << 15
_LABEL_MAX = 63
_NAME_MAX = 255


def question(message: bytes) -> tuple[str, int]:
    """The first name asked for, and the type of record; ("", 0) where there is none to be read."""
    if len(message) < _HEADER.size:
        return "", 0
    _, flags, questions, *_rest = _HEADER.unpack_from(message)
    if flags & _ANSWER or not questions:
        return "", 0
    labels: list[bytes] = []
    at = _HEADER.size
    while at < len(message) and at - _HEADER.size < _NAME_MAX:
        length = message[at]
        at += 1
        if not length:
            kind = int.from_bytes(message[at : at + 2])
            return ".".join(_label(label) for label in labels), kind
        # Longer ones would be pointers to another name: before the first there is none.
        if length > _LABEL_MAX or at + length > len(message):
            break
        labels.append(message[at : at + length])
        at += length
    return "", 0


def _label(data: bytes) -> str:
    """A dot in it is none between two; what is not to be shown is not."""
    text = data.decode("ascii", errors="backslashreplace")
    return "".join(c if c.isprintable() and c != "." else f"\\x{ord(c):02x}" for c in text)
