"""What a caller asks for: one call or a group, as parsed from the bus. If a `Spec` exists, its shape is
right; whether this machine grants it is for `planner.py` to say.
"""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Literal

import msgspec

from clawos.core.errors import BadRequest
from clawos.core.parse import Record, from_json
from clawos.isolator.errors import SpecInvalid

SPEC_BYTES_MAX = 1024 * 1024
ANYBODY = "clawos-sandbox"
"""The user whose name says nothing: only this one's calls may have another id outside."""
CALLS_MAX = 7
"""In a group: its streams, two for each call and one for the results, go into one message, and the system bus
lets that carry 16 descriptors."""
# What the kernel takes, its closing NUL included: a path, a name in it, one argument or variable.
_PATH_BYTES_MAX = 4096
_NAME_BYTES_MAX = 255
_ARG_BYTES_MAX = 128 * 1024
_MESSAGE_MAX = 300

_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9._-]{0,63}\Z")]
_Text = Annotated[str, msgspec.Meta(max_length=128 * 1024)]
_Path = Annotated[str, msgspec.Meta(pattern=r"^/", max_length=4095)]
_Uid = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)]

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")


class Spec(Record, frozen=True):
    tool: _Name
    argv: Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1, max_length=256)]
    runtime: Literal["native", "python", "wasm"] = "native"
    """What argv[0] is: a program, a file of Python, or a WebAssembly module."""
    zygote: bool = True
    """Whether a file of Python may begin as a copy of a Python that waits."""
    env: Annotated[dict[str, _Text], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=dict)
    stdin: bool = False
    cwd: _Path | None = None
    home: Literal["none", "read", "write"] = "none"
    home_owner: _Uid | None = None
    read: Annotated[tuple[_Path, ...], msgspec.Meta(max_length=32)] = ()
    sockets: Annotated[tuple[_Path, ...], msgspec.Meta(max_length=8)] = ()
    groups: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=8)] = ()
    host_proc: bool = False
    network: Literal["none", "egress"] = "none"
    """`egress`: the way to the egress service, and nothing else."""
    run_as: _Name = ANYBODY
    quota: _Name = "small"
    seccomp: _Name = "shell"
    wall_s: Annotated[float, msgspec.Meta(gt=0, le=86400)] | None = None
    session: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{0,32}\Z")] = ""
    """The agent's, for whoever asks whose call this is."""

    @property
    def user(self) -> int:
        """Whose turn the call takes."""
        return self.home_owner or 0


class Group(Record, frozen=True):
    """Calls for one user that start together: side by side, or each reading what the one before it writes."""

    how: Literal["parallel", "chain"]
    calls: Annotated[tuple[Spec, ...], msgspec.Meta(min_length=1, max_length=CALLS_MAX)]


def is_clean(path: str) -> bool:
    """Absolute, no NUL, in its shortest form (no `..`, `.`, `//`, trailing slash), short enough to exist."""
    if not path.startswith("/") or "\0" in path or posixpath.normpath(path) != path or path[:2] == "//":
        return False
    encoded = path.encode(errors="surrogatepass")
    return len(encoded) < _PATH_BYTES_MAX and all(len(n) <= _NAME_BYTES_MAX for n in encoded.split(b"/"))


def parse(text: str) -> Spec:
    """Parse a specification. Raises SpecInvalid with the path of what is wrong."""
    spec = _decode(text, Spec, "spec")
    _check(spec, "spec")
    return spec


def parse_group(text: str) -> Group:
    """Parse a group, which is no larger than one specification may be. Raises SpecInvalid."""
    group = _decode(text, Group, "group")
    for index, spec in enumerate(group.calls):
        where = f"group: calls[{index}]"
        _check(spec, where)
        if spec.user != group.calls[0].user:
            raise SpecInvalid(f"{where} is for another user than calls[0]")
        if group.how == "chain" and index and not spec.stdin:
            raise SpecInvalid(f"{where}: stdin is false, but it reads what calls[{index - 1}] writes")
    if group.how == "parallel" and sum(spec.stdin for spec in group.calls) > 1:
        raise SpecInvalid("group: only one of the calls side by side can have the standard input")
    return group


def _decode[T](text: str, kind: type[T], what: str) -> T:
    if len(text) > SPEC_BYTES_MAX or len(text.encode(errors="replace")) > SPEC_BYTES_MAX:
        raise SpecInvalid(f"the specification is larger than {SPEC_BYTES_MAX} bytes")
    try:
        return from_json(text, kind, what)
    except BadRequest as error:
        raise SpecInvalid(_short(error.message)) from None


def _check(spec: Spec, what: str) -> None:
    """What no type says."""
    variables = tuple(f"{name}={value}" for name, value in spec.env.items())
    for field, values in (("argv", spec.argv), ("env", variables)):
        if any("\0" in value or not _is_text(value) for value in values):
            raise SpecInvalid(f"{what}: {field} holds a NUL or half a character")
        if any(len(value.encode()) >= _ARG_BYTES_MAX for value in values):
            raise SpecInvalid(f"{what}: {field} holds a text of {_ARG_BYTES_MAX} bytes or more")
    if not is_clean(spec.argv[0]):
        raise SpecInvalid(f"{what}: argv[0] is not the absolute path of a program")
    for name in spec.env:
        if not _ENV_NAME.match(name):
            raise SpecInvalid(f"{what}: env: {_short(name)!r} is not a variable's name")
    for path in (*spec.read, *spec.sockets, *((spec.cwd,) if spec.cwd else ())):
        if not is_clean(path) or not _is_text(path):
            raise SpecInvalid(f"{what}: {_short(path)!r} is not a clean absolute path")
    if spec.home != "none" and spec.home_owner is None:
        raise SpecInvalid(f"{what}: home needs home_owner")


def _short(text: str) -> str:
    """For a message: what a caller sends may be a megabyte."""
    return text if len(text) <= _MESSAGE_MAX else f"{text[:_MESSAGE_MAX]}…"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates pass JSON but name no file
        return False
    return True
