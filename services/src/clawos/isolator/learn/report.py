"""From counts to what a person wants to know: what was called, what was refused, what was never needed."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping

from clawos.core.parse import Record
from clawos.isolator.learn.calls import Made
from clawos.isolator.seccomp.compiler import Architecture
from clawos.isolator.seccomp.evaluate import Answer, evaluate
from clawos.isolator.seccomp.profile import Rule


class Call(Record, frozen=True):
    """One system call, with the arguments by which it is judged."""

    syscall: str
    arguments: dict[str, int]
    calls: int


class Refusal(Record, frozen=True):
    syscall: str
    arguments: dict[str, int]
    calls: int
    answer: str


class Report(Record, frozen=True):
    seccomp: str
    allowed: tuple[Call, ...]
    refused: tuple[Refusal, ...]
    unused: tuple[str, ...]
    """Calls that the profile allows and nothing made."""
    lost: int
    """Beginnings and ends of calls that came too fast to be seen; then there were more calls than told."""


def judged(rules: Mapping[int, Rule]) -> dict[int, frozenset[int]]:
    """The positions of the arguments that a profile looks at, by number."""
    positions = {
        number: frozenset(test.arg for tests in rule.alternatives for test in tests)
        for number, rule in rules.items()
    }
    return {number: found for number, found in positions.items() if found}


def report(
    name: str,
    made: Mapping[Made, int],
    lost: int,
    blob: bytes,
    rules: Mapping[int, Rule],
    names: Mapping[int, str],
    architecture: Architecture,
) -> Report:
    """A call's beginning lies behind the filter and its end does not: a refused one has no beginning."""
    looked_at = judged(rules)
    allowed: Counter[tuple[str, tuple[tuple[str, int], ...]]] = Counter()
    refused: Counter[tuple[str, tuple[tuple[str, int], ...], str]] = Counter()
    for one, times in made.items():
        syscall = names.get(one.number, str(one.number))
        told = tuple(
            (f"arg{position}", value)
            for position in sorted(looked_at.get(one.number, ()))
            if (value := one.arguments[position]) is not None
        )
        if answer := _refusal(one, blob, architecture):
            refused[syscall, told, answer] += times
        else:
            allowed[syscall, told] += times
    used = {syscall for syscall, _ in allowed}
    may = {names.get(number, str(number)) for number, rule in rules.items() if rule.alternatives}
    return Report(
        seccomp=name,
        allowed=tuple(
            Call(syscall=syscall, arguments=dict(told), calls=times)
            for (syscall, told), times in sorted(allowed.items())
        ),
        refused=tuple(
            Refusal(syscall=syscall, arguments=dict(told), calls=times, answer=answer)
            for (syscall, told, answer), times in sorted(refused.items())
        ),
        unused=tuple(sorted(may - used)),
        lost=lost,
    )


def _refusal(one: Made, blob: bytes, architecture: Architecture) -> str | None:
    """How the profile refuses it, if it does. Where a beginning was lost, the filter's own text says so."""
    known = [argument for argument in one.arguments if argument is not None]
    if one.refused and len(known) < len(one.arguments):
        return errno.errorcode.get(one.refused, str(one.refused))
    answer = evaluate(blob, architecture.token, one.number, known)
    return None if answer == Answer.ALLOWED else Answer(answer).name
