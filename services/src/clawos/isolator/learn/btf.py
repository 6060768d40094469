"""The kernel's own description of its types (BTF), searched for a tracepoint."""

from __future__ import annotations

import struct
from pathlib import Path

from clawos.isolator.learn.bpf import Unwatchable

_MAGIC = 0xEB9F
_TYPEDEF = 8
# Bytes behind a type's head (include/uapi/linux/btf.h): always, and for each member.
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def tracepoint(name: str, file: Path = Path("/sys/kernel/btf/vmlinux")) -> int:
    """The type id that a program names to attach to a tracepoint. Raises Unwatchable."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Unwatchable(f"{file}: {error.strerror}", "this needs a kernel with BTF") from None
    magic, _, _, head, types, types_bytes, strings, strings_bytes = struct.unpack_from("<HBBIIIII", data)
    if magic != _MAGIC:
        raise Unwatchable(f"{file} holds no BTF of this machine")
    wanted = data.find(f"\0btf_trace_{name}\0".encode(), head + strings, head + strings + strings_bytes)
    wanted += 1 - (head + strings)
    at, end, type_id = head + types, head + types + types_bytes, 0
    while at < end:
        named, info, _ = struct.unpack_from("<III", data, at)
        type_id += 1
        kind, members = info >> 24 & 0x1F, info & 0xFFFF
        if kind == _TYPEDEF and named == wanted:
            return type_id
        at += 12 + _FIXED.get(kind, 0) + _EACH.get(kind, 0) * members
    raise Unwatchable(f"this kernel has no tracepoint {name}")
