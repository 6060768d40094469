"""libbpf.so.1, as far as the loader goes: open an object, pin its maps, load it, attach and pin its programs.

What libbpf has to say, the verifier's log too, it writes to stderr: the journal has it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from ctypes import c_bool, c_char_p, c_int, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LIBRARY = "libbpf.so.1"
_MAJOR, _MINOR_MIN = 1, 5
"""Debian 13's. Within a major version functions are only added."""
_ANY = 0  # BPF_ANY: whether there is such an element or not
_MAP_INFO_WORDS = 2
"""Of struct bpf_map_info: its type, its id."""


class BpfRefused(Exception):
    """A step that libbpf or the kernel refused, and on what."""

    def __init__(self, step: str, what: str, number: int) -> None:
        super().__init__(f"{step} {what}: {os.strerror(number)}")
        self.errno = number


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY, use_errno=True)
    version = library.libbpf_major_version(), library.libbpf_minor_version()
    if version[0] != _MAJOR or version[1] < _MINOR_MIN:
        raise BpfRefused(
            f"{_LIBRARY} {version[0]}.{version[1]}", f"{_MAJOR}.{_MINOR_MIN} or later", errno.ENOSYS
        )
    for name, result, *arguments in _FUNCTIONS:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


# name, result, arguments: what is not said would be cut to an int
_FUNCTIONS: tuple[tuple[str, Any, *tuple[Any, ...]], ...] = (
    ("bpf_object__open_file", c_void_p, c_char_p, c_void_p),
    ("bpf_object__load", c_int, c_void_p),
    ("bpf_object__close", None, c_void_p),
    ("bpf_object__next_map", c_void_p, c_void_p, c_void_p),
    ("bpf_object__next_program", c_void_p, c_void_p, c_void_p),
    ("bpf_map__name", c_char_p, c_void_p),
    ("bpf_map__fd", c_int, c_void_p),
    ("bpf_map__is_internal", c_bool, c_void_p),
    ("bpf_map__reuse_fd", c_int, c_void_p, c_int),
    ("bpf_program__name", c_char_p, c_void_p),
    ("bpf_program__section_name", c_char_p, c_void_p),
    ("bpf_program__fd", c_int, c_void_p),
    ("bpf_program__attach", c_void_p, c_void_p),
    ("bpf_program__pin", c_int, c_void_p, c_char_p),
    ("bpf_link__pin", c_int, c_void_p, c_char_p),
    ("bpf_link__destroy", c_int, c_void_p),
    ("bpf_map_update_elem", c_int, c_int, c_void_p, c_void_p, ctypes.c_uint64),
    ("bpf_map_get_next_key", c_int, c_int, c_void_p, c_void_p),
    ("bpf_map_delete_elem", c_int, c_int, c_void_p),
    ("bpf_obj_get", c_int, c_char_p),
    ("bpf_obj_pin", c_int, c_int, c_char_p),
    ("bpf_map_get_info_by_fd", c_int, c_int, c_void_p, c_void_p),
    ("bpf_map_freeze", c_int, c_int),
    ("bpf_link__fd", c_int, c_void_p),
)


def _check(step: str, what: str, result: int) -> None:
    """libbpf's functions say -errno; a few of the older kind -1, and errno."""
    if result < 0:
        raise BpfRefused(step, what, -result if result != -1 else ctypes.get_errno() or errno.EIO)


@dataclass(frozen=True)
class Map:
    """A map in the kernel; its descriptor is its object's, or for good."""

    name: str
    fd: int
    _library: ctypes.CDLL

    @classmethod
    def pinned(cls, path: Path) -> Map:
        """Raises BpfRefused."""
        library = _library()
        fd = library.bpf_obj_get(bytes(path))
        _check("open map", str(path), fd)
        return cls(path.name, fd, library)

    def pin(self, path: Path) -> None:
        _check("pin map", self.name, self._library.bpf_obj_pin(self.fd, bytes(path)))

    def update(self, key: bytes, value: bytes) -> None:
        """Of an array or hash; of cgroup storage, the key is a descriptor."""
        _check("fill map", self.name, self._library.bpf_map_update_elem(self.fd, key, value, _ANY))

    def clear(self, key_bytes: int) -> None:
        """Of a hash."""
        key = ctypes.create_string_buffer(key_bytes)
        while not self._library.bpf_map_get_next_key(self.fd, None, key):
            _check("clear map", self.name, self._library.bpf_map_delete_elem(self.fd, key))

    @property
    def id(self) -> int:
        """The kernel's number of it."""
        info, length = (ctypes.c_uint32 * _MAP_INFO_WORDS)(), ctypes.c_uint32(4 * _MAP_INFO_WORDS)
        done = self._library.bpf_map_get_info_by_fd(self.fd, ctypes.byref(info), ctypes.byref(length))
        _check("look at map", self.name, done)
        return info[1]

    def freeze(self) -> None:
        """No process writes to it any more, whatever descriptor it holds."""
        _check("freeze map", self.name, self._library.bpf_map_freeze(self.fd))


@dataclass(frozen=True)
class Program:
    """A program of an object that is loaded."""

    name: str
    section: str
    """As SEC() in its source says, such as lsm/file_open."""
    _handle: int
    _object: Object

    def attach(self, pin: Path) -> int:
        """Let it run from now on, held by a link pinned there; a descriptor of that is the caller's."""
        link = self._object.call("bpf_program__attach", self._handle)
        if not link:
            raise BpfRefused("attach", self.name, ctypes.get_errno())
        try:
            done = self._object.call("bpf_link__pin", link, bytes(pin))
            _check("pin link", self.name, done)
            return os.dup(self._object.call("bpf_link__fd", link))
        finally:
            # Our descriptor of it; the pin, where there is one, keeps it.
            self._object.call("bpf_link__destroy", link)

    def pin(self, path: Path) -> None:
        """Keep the program itself, for others to attach."""
        _check("pin program", self.name, self._object.call("bpf_program__pin", self._handle, bytes(path)))


class Object:
    """A compiled object, `….bpf.o`, loaded into the kernel; what is not pinned goes with close()."""

    def __init__(self, path: Path, prepare: Callable[[Object], None] = lambda _: None) -> None:
        """`prepare` runs between opening and loading. Raises BpfRefused."""
        self._library = _library()
        self._handle = self.call("bpf_object__open_file", bytes(path), None)
        if not self._handle:
            raise BpfRefused("open", str(path), ctypes.get_errno())
        try:
            prepare(self)
            _check("load", str(path), self.call("bpf_object__load", self._handle))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Object:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.call("bpf_object__close", self._handle)

    def maps(self) -> dict[str, Map]:
        """Those that the source declares; not libbpf's own, of constants and variables."""
        return {
            name: Map(name, self.call("bpf_map__fd", handle), self._library)
            for handle in self._each("bpf_object__next_map")
            if not self.call("bpf_map__is_internal", handle)
            for name in [self.call("bpf_map__name", handle).decode()]
        }

    def programs(self) -> list[Program]:
        return [
            Program(
                self.call("bpf_program__name", handle).decode(),
                self.call("bpf_program__section_name", handle).decode(),
                handle,
                self,
            )
            for handle in self._each("bpf_object__next_program")
        ]

    def share(self, pinned: dict[str, Path]) -> None:
        """Before loading: take these maps over from another object, by their pins."""
        for handle in self._each("bpf_object__next_map"):
            name = self.call("bpf_map__name", handle).decode()
            if name not in pinned:
                continue
            fd = self.call("bpf_obj_get", bytes(pinned[name]))
            _check("open map", name, fd)
            try:
                _check("share map", name, self.call("bpf_map__reuse_fd", handle, fd))
            finally:
                os.close(fd)

    def _each(self, following: str) -> Iterator[int]:
        handle = None
        while handle := self.call(following, self._handle, handle):
            yield handle

    def call(self, name: str, *arguments: object) -> Any:
        return getattr(self._library, name)(*arguments)
