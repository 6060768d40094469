"""What the measuring asks of bpf(2) itself: programs held and attached, run times told."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_SYS_BPF = 321
_PROG_LOAD, _PROG_FD_BY_ID, _RAW_TRACEPOINT_OPEN, _LINK_CREATE = 5, 13, 17, 28
_OBJ_GET, _INFO = 7, 15
_TYPE_XDP, _ATTACH_XDP = 6, 37
_RETURN_XDP_PASS = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)  # r0 = 2; exit
_ATTRIBUTES = 128
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTES)
    result: int = _libc.syscall(_SYS_BPF, command, buffer, _ATTRIBUTES)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def open_pin(path: Path) -> int:
    name = ctypes.create_string_buffer(bytes(path))
    return _bpf(_OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, 0))


def program_of_link(link: int) -> int:
    """A descriptor of the program that a link runs."""
    info = ctypes.create_string_buffer(_ATTRIBUTES)
    _bpf(_INFO, struct.pack("=IIQ", link, len(info), ctypes.addressof(info)))
    _, _, program = struct.unpack_from("=III", info)
    return _bpf(_PROG_FD_BY_ID, struct.pack("=II", program, 0))


def attach(program: int) -> int:
    """Run a program at the place it was compiled for, for as long as the descriptor is open."""
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("=QII", 0, program, 0))


def runs(program: int) -> tuple[int, int]:
    """How often it ran, and for how many nanoseconds, while kernel.bpf_stats_enabled was set."""
    told = dict(line.split(":\t") for line in Path(f"/proc/self/fdinfo/{program}").read_text().splitlines())
    return int(told["run_cnt"]), int(told["run_time_ns"])


def load_xdp_pass() -> int:
    """A program of XDP that lets everything pass."""
    code = ctypes.create_string_buffer(_RETURN_XDP_PASS, len(_RETURN_XDP_PASS))
    license_ = ctypes.create_string_buffer(b"GPL")
    count = len(_RETURN_XDP_PASS) // 8
    return _bpf(
        _PROG_LOAD,
        struct.pack("=IIQQ", _TYPE_XDP, count, ctypes.addressof(code), ctypes.addressof(license_)),
    )


def attach_xdp(program: int, interface: int) -> int:
    """Run a program on an interface of our network namespace, for as long as the descriptor is open."""
    return _bpf(_LINK_CREATE, struct.pack("=IIII", program, interface, _ATTACH_XDP, 0))
