"""Conditions of rules, compiled to closures."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from clawos.monitor.detect.fields import Getter, Type, of_kinds
from clawos.monitor.detect.language import Condition, Pattern, Scalar, Value, texts
from clawos.monitor.detect.text import SUBJECT_MAX, glob_pattern
from clawos.monitor.event import Event

Test = Callable[[Event], bool]
Check = Callable[[Any], bool]
Fields = Mapping[str, tuple[Type, Getter]]


def compile_pattern(pattern: Pattern) -> Test:
    """Whether an event, of one of the pattern's kinds, is meant. Raises ValueError."""
    fields = of_kinds(pattern.kinds)
    tests: list[Test] = []
    if pattern.scope == "sandbox":
        tests.append(_is_inside)
    elif pattern.scope == "host":
        tests.append(_is_outside)
    tests += _table(pattern.match, fields, "match")
    if pattern.any:
        tests.append(_any([_all(_table(t, fields, f"any[{n}]")) for n, t in enumerate(pattern.any)]))
    tests += [_not(_all(_table(t, fields, f"unless[{n}]"))) for n, t in enumerate(pattern.unless)]
    return _all(tests)


def _is_inside(event: Event) -> bool:
    return event.call != ""


def _is_outside(event: Event) -> bool:
    return event.call == ""


def _table(table: Mapping[str, Value], fields: Fields, where: str) -> list[Test]:
    tests = []
    for name, value in table.items():
        if name not in fields:
            raise ValueError(f"{where}: events of these kinds have no field {name!r}")
        kind, getter = fields[name]
        try:
            tests.append(_test(getter, kind, check(value, kind)))
        except ValueError as error:
            raise ValueError(f"{where}.{name}: {error}") from None
    return tests


def _test(getter: Getter, kind: Type, holds: Check) -> Test:
    if kind is Type.LIST:
        return lambda event: holds(getter(event) or ())

    def test(event: Event) -> bool:
        value = getter(event)
        return value is not None and holds(value)

    return test


def check(value: Value, kind: Type) -> Check:
    """Whether a field's value is what is wanted. Raises ValueError."""
    if isinstance(value, Condition):
        checks = list(_operators(value, kind))
        return checks[0] if len(checks) == 1 else lambda found: all(one(found) for one in checks)
    if isinstance(value, tuple):
        return _one_of(value, kind)
    return _equal(value, kind)


def _operators(condition: Condition, kind: Type) -> Iterable[Check]:
    if condition.equal is not None:
        yield _equal(condition.equal, kind)
    if condition.one_of is not None:
        yield _one_of(condition.one_of, kind)
    for name, words in (
        ("prefix", condition.prefix),
        ("suffix", condition.suffix),
        ("contains", condition.contains),
        ("glob", condition.glob),
        ("regex", condition.regex),
        ("cidr", condition.cidr),
    ):
        if words is not None:
            if kind not in (Type.TEXT, Type.LIST):
                raise ValueError(f"{name} is for text, not for a {kind}")
            yield _each(kind, _TEXT[name](texts(words)))
    if condition.min is not None or condition.max is not None:
        if kind is not Type.NUMBER:
            raise ValueError(f"min and max are for numbers, not for a {kind}")
        yield _between(condition.min, condition.max)
    if condition.bits is not None:
        if kind is not Type.NUMBER:
            raise ValueError(f"bits are for numbers, not for a {kind}")
        bits = condition.bits
        yield lambda found: bool(found & bits)
    if condition.is_not is not None:
        refused = check(condition.is_not, kind)
        yield lambda found: not refused(found)


def _each(kind: Type, holds: Check) -> Check:
    """Of a list, one element must do."""
    if kind is not Type.LIST:
        return holds
    return lambda found: any(holds(one) for one in found)


def _fits(value: Scalar, kind: Type) -> None:
    wanted: dict[Type, tuple[type, ...]] = {
        Type.TEXT: (str,),
        Type.LIST: (str,),
        Type.NUMBER: (int, float),
        Type.FLAG: (bool,),
    }
    if not isinstance(value, wanted[kind]) or (isinstance(value, bool) and kind is not Type.FLAG):
        raise ValueError(f"{value!r} is no {Type.TEXT if kind is Type.LIST else kind}")


def _equal(value: Scalar, kind: Type) -> Check:
    if isinstance(value, str) and value.startswith("@"):
        raise ValueError("a named list stands in a list of values: [" + repr(value) + "]")
    _fits(value, kind)
    return _each(kind, lambda found: found == value)


def _one_of(values: Sequence[Scalar], kind: Type) -> Check:
    wanted = frozenset(values)
    for value in wanted:
        _fits(value, kind)
    if kind is Type.LIST:
        return lambda found: not wanted.isdisjoint(found)
    return lambda found: found in wanted


def _between(least: float | None, most: float | None) -> Check:
    low = float("-inf") if least is None else least
    high = float("inf") if most is None else most
    return lambda found: low <= found <= high


def _prefix(words: tuple[str, ...]) -> Check:
    return lambda found: found.startswith(words)


def _suffix(words: tuple[str, ...]) -> Check:
    return lambda found: found.endswith(words)


def _contains(words: tuple[str, ...]) -> Check:
    if len(words) == 1:
        (word,) = words
        return lambda found: word in found

    def holds(found: str) -> bool:
        for word in words:  # noqa: SIM110 # a generator would cost as much as the search
            if word in found:
                return True
        return False

    return holds


def _glob(words: tuple[str, ...]) -> Check:
    matches = [re.compile(glob_pattern(word)).match for word in words]
    return lambda found: any(match(found[:SUBJECT_MAX]) for match in matches)


def _regex(words: tuple[str, ...]) -> Check:
    search = re.compile(words[0]).search
    return lambda found: search(found[:SUBJECT_MAX]) is not None


def _cidr(words: tuple[str, ...]) -> Check:
    networks = [ipaddress.ip_network(word) for word in words]

    @lru_cache(maxsize=1024)
    def holds(found: str) -> bool:
        try:
            address = ipaddress.ip_address(found)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in networks)

    return holds


_TEXT: Mapping[str, Callable[[tuple[str, ...]], Check]] = {
    "prefix": _prefix,
    "suffix": _suffix,
    "contains": _contains,
    "glob": _glob,
    "regex": _regex,
    "cidr": _cidr,
}


def _all(tests: Sequence[Test]) -> Test:
    match len(tests):
        case 0:
            return lambda _: True
        case 1:
            return tests[0]
        case 2:
            one, two = tests
            return lambda event: one(event) and two(event)
        case _:

            def all_hold(event: Event) -> bool:
                for test in tests:  # noqa: SIM110 # a generator would cost as much as the tests
                    if not test(event):
                        return False
                return True

            return all_hold


def _any(tests: Sequence[Test]) -> Test:
    return lambda event: any(test(event) for test in tests)


def _not(test: Test) -> Test:
    return lambda event: not test(event)
