"""Does a compiled filter say what its profile says? Asked when the image is built; a filter that fails is not
written.

The cases cover every number that a kernel may have and the x32 range, other architectures, and for judged
arguments each value of the profile, its neighbours, each bit of it turned over, and the high half set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from clawos.core.errors import ConfigInvalid
from clawos.isolator.seccomp.compiler import ARCHITECTURES, X32_BIT, Architecture
from clawos.isolator.seccomp.evaluate import Answer, evaluate
from clawos.isolator.seccomp.profile import Rule

NUMBERS = range(1024)
_FAR_NUMBERS = (2**16, 2**29, 2**30 - 1)
_X32_NUMBERS = (*range(X32_BIT, X32_BIT + 600), 2**31 - 1, 2**31, 2**32 - 1)
_I386 = 0x40000003
_LOW, _ALL = 2**32 - 1, 2**64 - 1


@dataclass(frozen=True)
class Case:
    """One call, and what it must get."""

    token: int
    number: int
    arguments: tuple[int, ...]
    answer: Answer


def wanted(rule: Rule | None, arguments: tuple[int, ...]) -> Answer:
    """What a profile means, in the plainest words that there are for it."""
    if rule is None:
        return Answer.ENOSYS
    for tests in rule.alternatives:
        if all(arguments[test.arg] & test.mask == test.value for test in tests):
            return Answer.ALLOWED
    return Answer.EPERM


def cases(rules: Mapping[int, Rule], architecture: Architecture) -> Iterator[Case]:
    """Everything that a filter is asked."""
    for number in (*NUMBERS, *_FAR_NUMBERS):
        yield from cases_of(number, rules.get(number), architecture)
    zeros = (0,) * 6
    if architecture.has_x32:
        for number in _X32_NUMBERS:
            yield Case(architecture.token, number, zeros, Answer.KILLED)
    others = {a.token for a in ARCHITECTURES.values()} | {_I386, 0, 2**32 - 1}
    for token in sorted(others - {architecture.token}):
        for number in (*range(0, 600, 7), *rules):
            yield Case(token, number, zeros, Answer.KILLED)


def cases_of(number: int, rule: Rule | None, architecture: Architecture) -> Iterator[Case]:
    """What a filter is asked about one call."""
    for arguments in sorted(_arguments(rule)):
        yield Case(architecture.token, number, arguments, wanted(rule, arguments))


def verify(blob: bytes, rules: Mapping[int, Rule], architecture: Architecture) -> int:
    """Compare on every case; returns how many there were. Raises ConfigInvalid on the first difference."""
    count = 0
    for case in cases(rules, architecture):
        got = evaluate(blob, case.token, case.number, case.arguments)
        if got != case.answer:
            raise ConfigInvalid(
                f"seccomp: {architecture.name}: call {case.number:#x} of {case.token:#x} with "
                f"{', '.join(map(hex, case.arguments))} gets {got:#x} instead of {case.answer.name}"
            )
        count += 1
    return count


def _arguments(rule: Rule | None) -> set[tuple[int, ...]]:
    found: set[tuple[int, ...]] = {(0,) * 6, (_ALL,) * 6}
    if rule is None:
        return found
    asked: dict[int, set[int]] = {}
    for test in (test for tests in rule.alternatives for test in tests):
        asked.setdefault(test.arg, {0}).update((test.value, test.mask, _LOW & ~test.mask))
    for varied in asked:
        choices = [_boundaries(values) if arg == varied else values for arg, values in asked.items()]
        for chosen, rest in product(product(*choices), (0, _ALL)):
            arguments = dict(enumerate([rest] * 6)) | dict(zip(asked, chosen, strict=True))
            found.add(tuple(arguments[arg] for arg in range(6)))
    return found


def _boundaries(values: set[int]) -> set[int]:
    near = {n % 2**32 for value in values for n in (value - 1, value, value + 1)}
    turned = {value ^ 1 << bit for value in values for bit in range(64)}
    return near | turned | {value | _ALL & ~_LOW for value in near}
