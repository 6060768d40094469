"""policies/enforce.toml: what the kernel refuses to sandboxes, and what XDP lets pass.

Parsed strictly: what is wrong is named with its line, and nothing of such a file is used. `fill.py` makes of
it what the maps of `ebpf/enforce` and `ebpf/xdp` hold.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from clawos.core.errors import ConfigInvalid
from clawos.core.parse import Record

SETS_MAX = 16
RULES_MAX = 1000
DEVICES_MAX = 64
HOSTS_MAX = 250
PATH_BYTES_MAX = 240
"""With the byte that ends it, below what a key of the kernel's trie holds."""
EGRESS_MAX = 64
UPLINK_MAX = 250
DEFAULT = "default"

_Name = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9-]{0,31}$")]
_Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
_Path = Annotated[str, msgspec.Meta(pattern="^/[^\\x00]*$")]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_EtherType = Annotated[int, msgspec.Meta(ge=0x0600, le=0xFFFF)]
_Rate = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class Family(Enum):
    UNIX = "unix"
    INET = "inet"
    INET6 = "inet6"
    NETLINK = "netlink"


class Act(Enum):
    OPEN = "open"
    WRITE = "write"
    EXECUTE = "execute"


class Direction(Enum):
    CONNECT = "connect"
    BIND = "bind"


class Forbidden(Enum):
    MODULE = "module"
    PTRACE = "ptrace"
    MOUNT = "mount"
    NAMESPACE = "namespace"


class Set(Record, frozen=True):
    """What holds for a sandbox as a whole."""

    reason: _Reason
    families: tuple[Family, ...]
    forbid: tuple[Forbidden, ...]


class Device(Record, frozen=True):
    """A character device that may be opened."""

    number: Annotated[str, msgspec.Meta(pattern="^[0-9]{1,4}:[0-9]{1,7}$")]
    reason: _Reason


class Host(Record, frozen=True):
    """A file or directory of the machine's, refused by whatever name."""

    path: _Path
    reason: _Reason
    allow: bool = False

    def __post_init__(self) -> None:
        _check_path(self.path)


class PathRule(Record, frozen=True):
    """A path as the sandbox sees it."""

    reason: _Reason
    set: _Name = DEFAULT
    file: _Path | None = None
    below: _Path | None = None
    deny: tuple[Act, ...] = ()
    allow: tuple[Act, ...] = ()

    def __post_init__(self) -> None:
        if (self.file is None) == (self.below is None):
            raise ValueError("a rule has either `file` or `below`")
        _check_verdicts(self.deny, self.allow)
        _check_path(self.path)
        if self.file == "/":
            raise ValueError("/ is no file")

    @property
    def path(self) -> str:
        return self.file or self.below or ""


class AddressRule(Record, frozen=True):
    net: str
    reason: _Reason
    set: _Name = DEFAULT
    ports: Annotated[tuple[_Port, ...], msgspec.Meta(max_length=64)] = ()
    deny: tuple[Direction, ...] = ()
    allow: tuple[Direction, ...] = ()

    def __post_init__(self) -> None:
        _check_verdicts(self.deny, self.allow)
        ip_network(self.net)

    @property
    def network(self) -> IPv4Network | IPv6Network:
        return ip_network(self.net)


type Rule = PathRule | AddressRule | Host


class EgressAllow(Record, frozen=True):
    address: str
    port: _Port
    reason: _Reason

    def __post_init__(self) -> None:
        IPv4Address(self.address)


class Egress(Record, frozen=True):
    """What passes a sandbox's link, and how many packets of each sandbox."""

    packets_s: _Rate
    burst: _Rate
    allow: Annotated[tuple[EgressAllow, ...], msgspec.Meta(min_length=1, max_length=EGRESS_MAX)]


class UplinkAllow(Record, frozen=True):
    protocol: Literal["tcp", "udp"]
    port: _Port
    reason: _Reason


class Uplink(Record, frozen=True):
    """What comes in over the machine's uplink."""

    packets_s: _Rate
    burst: _Rate
    ephemeral: Annotated[tuple[_Port, ...], msgspec.Meta(min_length=2, max_length=2)]
    types: Annotated[tuple[_EtherType, ...], msgspec.Meta(max_length=16)]
    allow: Annotated[tuple[UplinkAllow, ...], msgspec.Meta(max_length=UPLINK_MAX)] = ()

    def __post_init__(self) -> None:
        if self.ephemeral[0] > self.ephemeral[1]:
            raise ValueError("ephemeral: the first port is above the last")
        if {0x0800, 0x86DD} & set(self.types):
            raise ValueError("types: IPv4 and IPv6 do not pass as such")


class Policy(Record, frozen=True):
    """The whole file."""

    version: Literal[1]
    set: dict[_Name, Set]
    device: Annotated[tuple[Device, ...], msgspec.Meta(max_length=DEVICES_MAX)]
    path: tuple[PathRule, ...]
    address: tuple[AddressRule, ...]
    egress: Egress
    uplink: Uplink
    host: Annotated[tuple[Host, ...], msgspec.Meta(max_length=HOSTS_MAX)] = ()

    @property
    def sets(self) -> list[str]:
        """Their names; the number of each is its place."""
        return [DEFAULT, *sorted(self.set.keys() - {DEFAULT})]

    @property
    def rules(self) -> list[Rule]:
        """In the order of their numbers."""
        return [*self.path, *self.address, *self.host]


def published_schema() -> dict[str, Any]:
    """What stands in `policies/schema/enforce.schema.json`."""
    schema = msgspec.json.schema(Policy)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ClawOS enforcement"}
    return head | schema


def load(path: Path) -> Policy:
    """Raises ConfigInvalid, which names the line."""
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigInvalid(f"{path}: {error.strerror}", "restore the file") from None
    except UnicodeDecodeError as error:
        raise ConfigInvalid(f"{path}: {error}", "restore the file") from None
    return parse(text, str(path))


def parse(text: str, name: str) -> Policy:
    """Raises ConfigInvalid, which names the line."""
    hint = "correct the line and load again"
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise ConfigInvalid(f"{name}:{line}: {error}", hint, line=line) from None
    try:
        policy = msgspec.convert(values, type=Policy)
    except msgspec.ValidationError as error:
        what, where = _told(error, values)
        line = _line_of(text, where)
        raise ConfigInvalid(f"{name}:{line}: {what} ({where})", hint, line=line) from None
    for where, what in _faults(policy):
        line = _line_of(text, where)
        raise ConfigInvalid(f"{name}:{line}: {what} ({where})", hint, line=line)
    return policy


def _told(error: msgspec.ValidationError, values: dict[str, Any]) -> tuple[str, str]:
    """What is wrong and where; msgspec does not say which of the sets it is."""
    what, _, where = str(error).partition(" - at `")
    where = where.removesuffix("`") or "$"
    if where.startswith("$.set[...]"):
        for name, value in values["set"].items():
            try:
                msgspec.convert(value, type=Set)
            except msgspec.ValidationError:
                return what, where.replace("[...]", f".{name}", 1)
    return what, where


def _faults(policy: Policy) -> Iterator[tuple[str, str]]:
    """What is wrong between the parts, each valid for itself: where, and what."""
    if DEFAULT not in policy.set:
        yield "$.set", f"there is no set {DEFAULT!r}"
    if len(policy.set) > SETS_MAX:
        yield "$.set", f"more than {SETS_MAX} sets"
    count = sum(len(rule.deny + rule.allow) for rule in policy.path) * 2
    count += sum(len(rule.deny + rule.allow) * max(1, len(rule.ports)) for rule in policy.address)
    if count + len(policy.host) > RULES_MAX:
        yield "$.path[0]", f"more than {RULES_MAX} entries of the kernel's maps"
    seen: set[tuple[object, ...]] = set()
    for where, rule in _places(policy):
        if not isinstance(rule, Host) and rule.set not in policy.set:
            yield f"{where}.set", f"there is no set {rule.set!r}"
        for what in _names(rule):
            if what in seen:
                yield where, "another rule says something of the same"
            seen.add(what)


def _places(policy: Policy) -> Iterator[tuple[str, Rule]]:
    yield from ((f"$.path[{index}]", rule) for index, rule in enumerate(policy.path))
    yield from ((f"$.address[{index}]", rule) for index, rule in enumerate(policy.address))
    yield from ((f"$.host[{index}]", rule) for index, rule in enumerate(policy.host))


def _names(rule: Rule) -> Iterator[tuple[object, ...]]:
    """What a rule is about, so that two of the same show."""
    if isinstance(rule, Host):
        yield "host", rule.path
        return
    for act in (*rule.deny, *rule.allow):
        if isinstance(rule, PathRule):
            # `file` may be an exception to `below` of the same name.
            yield rule.set, act, rule.path, rule.below is None
        else:
            for port in rule.ports or (0,):
                yield rule.set, act, str(rule.network), port


def _check_path(path: str) -> None:
    if path != "/" and (path.endswith("/") or {"", ".", ".."} & set(path[1:].split("/"))):
        raise ValueError(f"{path!r} is not a path in its plain form")
    if len(path.encode()) > PATH_BYTES_MAX:
        raise ValueError(f"a path of more than {PATH_BYTES_MAX} bytes")


def _check_verdicts(deny: tuple[object, ...], allow: tuple[object, ...]) -> None:
    if bool(deny) == bool(allow):
        raise ValueError("a rule has either `deny` or `allow`")
    if len(set(deny + allow)) != len(deny + allow):
        raise ValueError("the same act twice")


def _line_of(text: str, where: str) -> int:
    """The line of a place that msgspec names, such as $.path[3].deny: the key's, else its table's."""
    lines = text.splitlines()
    at, table = 0, ""
    for name, index in re.findall(r"(?:\.([\w-]+)|\[(\d+|\.\.\.)\])", where.removeprefix("$")):
        if name:
            found = _key_line(lines, at, table, name)
            if found is None:
                table = f"{table}.{name}" if table else name
                header = _nth_line(lines, rf"\[\[?{re.escape(table)}\]\]?", 0)
                at = header if header is not None else at
            else:
                return found + 1
        elif index.isdigit():
            header = _nth_line(lines, rf"\[\[{re.escape(table)}\]\]", int(index))
            at = header if header is not None else at
    return at + 1


def _key_line(lines: list[str], at: int, table: str, name: str) -> int | None:
    """The line of a key of the table whose header is at `at`."""
    begin = at + 1 if table else 0
    for number in range(begin, len(lines)):
        if lines[number].lstrip().startswith("["):
            return None
        if re.match(rf"\s*{re.escape(name)}\s*=", lines[number]):
            return number
    return None


def _nth_line(lines: list[str], pattern: str, index: int) -> int | None:
    matches = [number for number, line in enumerate(lines) if re.match(rf"\s*{pattern}\s*(#.*)?$", line)]
    return matches[index] if index < len(matches) else None
