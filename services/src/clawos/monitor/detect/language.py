"""The language of the rules, as policies/detect/*.toml is written in it. If a value exists, it is valid.

    [[rule]]
    id = "memory-exec"
    title = "A program without a file was run"
    severity = "high"
    attack = ["T1620"]
    kinds = ["exec"]
    match = { links = 0, path = { prefix = "/memfd:" } }
    unless = [{ parent = "/usr/bin/runc" }]
    message = "{who} ran a program from memory: {command}"
    react = ["alert", "kill"]

A rule holds for an event when all of `match` hold, at least one table of `any` (where there are some) and
none of `unless`. On that it may count (`count`, `distinct`, `within_s`, `by`), wait for one thing after
another (`steps`, `within_s`, `by`), or ask whether this was ever seen before (`first`).
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from clawos.core.parse import Record
from clawos.monitor.detect.fields import OWN
from clawos.monitor.detect.text import GLOB_STEPS_MAX, check_pattern, glob_pattern

Scalar = bool | int | float | str
_Texts = str | Annotated[tuple[str, ...], Meta(min_length=1, max_length=256)]
_FieldName = Annotated[str, Meta(pattern=r"^[a-z][a-z_]{0,31}$")]
_Kind = Annotated[str, Meta(pattern=f"^({'|'.join(OWN)})$")]
Severity = Literal["info", "low", "medium", "high", "critical"]
Reaction = Literal["log", "alert", "kill", "freeze"]
SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")
_COUNT_MAX = 10_000
_WITHIN_MAX_S = 3600


class Condition(Record, frozen=True, omit_defaults=True, rename={"one_of": "in", "is_not": "not"}):
    """What one field must be; of several operators all must hold. Of a list, one element must do."""

    equal: Scalar | None = None
    one_of: Annotated[tuple[Scalar, ...], Meta(min_length=1, max_length=1024)] | None = None
    prefix: _Texts | None = None
    suffix: _Texts | None = None
    contains: _Texts | None = None
    glob: Annotated[
        _Texts | None, Meta(description="* is anything but a slash, ** anything, ? one character")
    ] = None
    regex: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    min: float | None = None
    max: float | None = None
    bits: Annotated[int | None, Meta(description="at least one of these bits is set")] = None
    cidr: _Texts | None = None
    is_not: Scalar | tuple[Scalar, ...] | Condition | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, name) is None for name in self.__struct_fields__):
            raise ValueError("a condition without an operator")
        if self.regex is not None:
            check_pattern(self.regex)
        for pattern in texts(self.glob):
            check_pattern(glob_pattern(pattern), GLOB_STEPS_MAX)
        for network in texts(self.cidr):
            if not network.startswith("@"):
                ipaddress.ip_network(network)


Value = Scalar | Annotated[tuple[Scalar, ...], Meta(min_length=1, max_length=1024)] | Condition
Table = Annotated[dict[_FieldName, Value], Meta(min_length=1, max_length=32)]


def texts(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


class Pattern(Record, frozen=True, omit_defaults=True):
    """Which events are meant."""

    kinds: Annotated[tuple[_Kind, ...], Meta(max_length=len(OWN))] = ()
    scope: Literal["anywhere", "sandbox", "host"] = "anywhere"
    match: dict[_FieldName, Value] = msgspec.field(default_factory=dict)
    any: Annotated[tuple[Table, ...], Meta(max_length=32)] = ()
    unless: Annotated[tuple[Table, ...], Meta(max_length=64)] = ()


class Step(Pattern, frozen=True):
    """One thing of a sequence."""

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ValueError("a step needs kinds")


class Rule(Pattern, frozen=True, kw_only=True):
    """One rule."""

    id: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{1,63}$")]
    title: Annotated[str, Meta(min_length=1, max_length=120)]
    severity: Severity
    attack: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^T[0-9]{4}(\.[0-9]{3})?$")], ...],
        Meta(max_length=8, description="ids of MITRE ATT&CK"),
    ]
    message: Annotated[str, Meta(min_length=1, max_length=400)]
    react: Annotated[tuple[Reaction, ...], Meta(min_length=1, max_length=4)]
    note: Annotated[str, Meta(max_length=1000)] = ""
    quiet_s: Annotated[float, Meta(ge=0, le=86400)] = 60
    """The same of the same process counts as one alert for so long."""
    count: Annotated[int, Meta(ge=2, le=_COUNT_MAX)] | None = None
    distinct: _FieldName | None = None
    within_s: Annotated[float, Meta(gt=0, le=_WITHIN_MAX_S)] | None = None
    by: Annotated[tuple[_FieldName, ...], Meta(max_length=4)] = ()
    steps: Annotated[tuple[Step, ...], Meta(max_length=8)] = ()
    first: Annotated[tuple[_FieldName, ...], Meta(max_length=4)] = ()

    def __post_init__(self) -> None:
        ways = [self.count is not None, bool(self.steps), bool(self.first)]
        if sum(ways) > 1:
            raise ValueError("count, steps and first are three kinds of rules: one of them")
        if bool(self.kinds) == bool(self.steps):
            raise ValueError("a rule has kinds, or else steps")
        if self.steps and (self.match or self.any or self.unless or self.scope != "anywhere"):
            raise ValueError("with steps, the conditions stand in the steps")
        if len(self.steps) == 1:
            raise ValueError("one step is no sequence")
        timed = self.count is not None or bool(self.steps)
        if timed != (self.within_s is not None):
            raise ValueError("within_s goes with count and steps, and they with it")
        if timed != bool(self.by):
            raise ValueError("by goes with count and steps, and they with it")
        if self.distinct is not None and self.count is None:
            raise ValueError("distinct goes with count")
        if len(set(self.react)) != len(self.react):
            raise ValueError("react names the same twice")


class RuleFile(Record, frozen=True):
    """One file."""

    lists: dict[_FieldName, Annotated[tuple[Scalar, ...], Meta(min_length=1, max_length=1024)]] = (
        msgspec.field(default_factory=dict)
    )
    """Named values; "@name" in a list of values stands for them, in all files."""
    rule: Annotated[tuple[Rule, ...], Meta(max_length=512)] = ()


def published_schema() -> dict[str, Any]:
    """What stands in `policies/schema/detect.schema.json`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ClawOS detection rules",
        **msgspec.json.schema(RuleFile),
    }
