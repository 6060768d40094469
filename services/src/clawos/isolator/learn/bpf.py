"""bpf(2), as far as the learning mode needs it: maps, a tracing program, its attachment. Only root may."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from enum import IntEnum

from clawos.core.errors import ClawError

_NUMBER = {"x86_64": 321, "aarch64": 280}
_LOG_BYTES = 65536
# The kernel lets only programs under the GPL read its structures; ours is under both.
_LICENSE = b"Dual MIT/GPL"
_TRACING = 26  # BPF_PROG_TYPE_TRACING
_TRACE_RAW_TP = 23  # BPF_TRACE_RAW_TP, attached by its BTF id


class Unwatchable(ClawError):
    """This kernel, or this caller, cannot watch system calls."""

    name = "Unwatchable"


class _Command(IntEnum):
    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    RAW_TRACEPOINT_OPEN = 17


class MapKind(IntEnum):
    HASH = 1
    ARRAY = 2


def _bpf(command: _Command, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    done: int = libc.syscall(_NUMBER[platform.machine()], int(command), buffer, len(attributes))
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done


class Map:
    """A map in the kernel, for as long as this object lives."""

    def __init__(self, kind: MapKind, key_bytes: int, value_bytes: int, entries: int) -> None:
        try:
            self.fd = _bpf(
                _Command.MAP_CREATE, struct.pack("<IIIII", kind, key_bytes, value_bytes, entries, 0)
            )
        except OSError as error:
            raise _unwatchable(error) from None
        self._key_bytes, self._value_bytes = key_bytes, value_bytes

    def close(self) -> None:
        os.close(self.fd)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        held = ctypes.create_string_buffer(value, self._value_bytes)
        self._with(_Command.MAP_UPDATE_ELEM, key, held)

    def __getitem__(self, key: bytes) -> bytes:
        held = ctypes.create_string_buffer(self._value_bytes)
        self._with(_Command.MAP_LOOKUP_ELEM, key, held)
        return held.raw

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Everything in it; nothing is removed meanwhile."""
        key: bytes | None = None
        while True:
            following = ctypes.create_string_buffer(self._key_bytes)
            try:
                self._with(_Command.MAP_GET_NEXT_KEY, key, following)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            key = following.raw
            yield key, self[key]

    def _with(self, command: _Command, key: bytes | None, other: ctypes.Array[ctypes.c_char]) -> None:
        held = ctypes.create_string_buffer(key, self._key_bytes) if key is not None else None
        address = ctypes.addressof(held) if held is not None else 0
        _bpf(command, struct.pack("<IIQQQ", self.fd, 0, address, ctypes.addressof(other), 0))


def load(code: bytes, btf_id: int, name: str) -> int:
    """Load a program for a tracepoint. Returns its descriptor. Raises Unwatchable."""
    held, terms = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(_LICENSE)
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attributes = struct.pack(
        "<IIQQIIQII16sIIIIQIIQII",
        _TRACING,
        len(code) // 8,
        ctypes.addressof(held),
        ctypes.addressof(terms),
        1,
        _LOG_BYTES,
        ctypes.addressof(log),
        0,
        0,
        name.encode(),
        0,
        _TRACE_RAW_TP,
        *(0,) * 7,
        btf_id,
    )
    try:
        return _bpf(_Command.PROG_LOAD, attributes)
    except OSError as error:
        raise _unwatchable(error, log.value.decode(errors="replace")) from None


def attach(program: int) -> int:
    """From here on the program runs. Returns a descriptor, whose close ends that. Raises Unwatchable."""
    try:
        return _bpf(_Command.RAW_TRACEPOINT_OPEN, struct.pack("<QII", 0, program, 0))
    except OSError as error:
        raise _unwatchable(error) from None


def _unwatchable(error: OSError, log: str = "") -> Unwatchable:
    hint = (
        "run it as root"
        if error.errno == errno.EPERM
        else "this needs a kernel with BTF and tracing programs"
    )
    last = log.strip().splitlines()[-3:]
    return Unwatchable(f"the kernel refuses to watch: {': '.join([error.strerror or '', *last])}", hint)
