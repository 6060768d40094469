"""policies/seccomp/*.json → what each system call gets. Layers are joined; a contradiction is an error."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

import msgspec

from clawos.core.errors import BadRequest, ConfigInvalid
from clawos.core.parse import Record, from_json

_Low32 = 0xFFFFFFFF
_Number = (
    Annotated[int, msgspec.Meta(ge=0, le=_Low32)]
    | Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-f]{1,8}\Z")]
)


class _Test(Record, frozen=True):
    arg: Annotated[int, msgspec.Meta(ge=0, le=5)]
    value: _Number
    mask: _Number = _Low32
    name: str = ""


class _Conditional(Record, frozen=True):
    syscall: str
    reason: str
    only: Annotated[tuple[tuple[_Test, ...], ...], msgspec.Meta(min_length=1, max_length=32)]


class _File(Record, frozen=True):
    description: str
    like: str | None = None
    instead: dict[str, str] = msgspec.field(default_factory=dict)
    include: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    conditional: tuple[_Conditional, ...] = ()
    allow_on: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    reasons: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if strays := set(self.reasons) - {*self.allow, *self.deny, *chain(*self.allow_on.values())}:
            raise ValueError(f"reasons names what is not listed: {', '.join(sorted(strays))}")
        if bool(self.like) != bool(self.instead) or (self.like and self.include):
            raise ValueError("like and instead go together, and without include")


@dataclass(frozen=True)
class Comparison:
    """The low 32 bits of an argument, masked, equal value."""

    arg: int
    mask: int
    value: int


@dataclass(frozen=True)
class Rule:
    """What a system call gets: allowed if one alternative's tests all hold, else EPERM.

    `ALLOW` has one alternative without tests, `DENY` has none.
    """

    alternatives: tuple[tuple[Comparison, ...], ...]

    @property
    def is_plain(self) -> bool:
        """Is the answer the same whatever the arguments?"""
        return self in (ALLOW, DENY)


ALLOW = Rule(((),))
DENY = Rule(())


def load(directory: Path, name: str, architecture: str) -> dict[str, Rule]:
    """Rules of a profile by system call. Raises ConfigInvalid."""
    rules: dict[str, Rule] = {}
    profile = _profile(directory, name)
    for file in (profile, *(_read(directory / "layers" / f"{layer}.json") for layer in profile.include)):
        if file is not profile and file.include:
            raise ConfigInvalid(f"{directory}: {name}: a layer includes no layer")
        allowed = (*file.allow, *file.allow_on.get(architecture, ()))
        named = [(call, ALLOW) for call in allowed] + [(call, DENY) for call in file.deny]
        named += [
            (c.syscall, Rule(tuple(tuple(map(_test, tests)) for tests in c.only))) for c in file.conditional
        ]
        for call, rule in named:
            if call in rules:
                raise ConfigInvalid(f"{directory}: {name}: {call} is named twice")
            rules[call] = rule
    return rules


def _profile(directory: Path, name: str) -> _File:
    """A profile that is like another is that one, with other layers in the place of some."""
    variant = _read(directory / f"{name}.json")
    if variant.like is None:
        return variant
    original = _read(directory / f"{variant.like}.json")
    if strays := set(variant.instead) - set(original.include):
        raise ConfigInvalid(
            f"{directory}: {name}: {variant.like} does not include {', '.join(sorted(strays))}"
        )
    return msgspec.structs.replace(
        original, include=tuple(variant.instead.get(layer, layer) for layer in original.include)
    )


def names(directory: Path) -> list[str]:
    return sorted(path.stem for path in directory.glob("*.json"))


def _read(path: Path) -> _File:
    try:
        return from_json(path.read_bytes(), _File, str(path))
    except BadRequest as error:
        raise ConfigInvalid(error.message) from None
    except OSError as error:
        raise ConfigInvalid(f"{path}: {error.strerror}") from None


def _test(test: _Test) -> Comparison:
    mask, value = _number(test.mask), _number(test.value)
    if value & ~mask:
        raise ConfigInvalid(f"seccomp: value {value:#x} has bits outside its mask {mask:#x}")
    return Comparison(test.arg, mask, value)


def _number(value: int | str) -> int:
    return int(value, 16) if isinstance(value, str) else value
