"""From counts to what a person wants to know: what was called, what was refused, what was never needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from clawos.core.parse import Record
from clawos.isolator.learn.program import BEGAN
from clawos.isolator.learn.watch import Count
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
    """Calls that were too many to tell apart."""


def judged(rules: Mapping[int, Rule]) -> dict[int, frozenset[int]]:
    """The positions of the arguments that a profile looks at, by number."""
    positions = {
        number: frozenset(test.arg for tests in rule.alternatives for test in tests)
        for number, rule in rules.items()
    }
    return {number: found for number, found in positions.items() if found}


def report(
    name: str,
    counts: Iterable[Count],
    lost: int,
    blob: bytes,
    rules: Mapping[int, Rule],
    names: Mapping[int, str],
    architecture: Architecture,
) -> Report:
    """A call's beginning lies behind the filter and its end does not, so each is counted where it was seen
    more often: a program's last call has no end, a refused one no beginning."""
    seen: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(lambda: [0, 0])
    for count in counts:
        seen[count.number, count.arguments][count.end != BEGAN] += count.times
    looked_at = judged(rules)
    allowed: list[Call] = []
    refused: list[Refusal] = []
    for (number, arguments), times in sorted(seen.items()):
        told = {f"arg{position}": arguments[position] for position in sorted(looked_at.get(number, ()))}
        syscall = names.get(number, str(number))
        answer = evaluate(blob, architecture.token, number, arguments)
        if answer == Answer.ALLOWED:
            allowed.append(Call(syscall=syscall, arguments=told, calls=max(times)))
        else:
            named = Answer(answer).name
            refused.append(Refusal(syscall=syscall, arguments=told, calls=max(times), answer=named))
    made = {call.syscall for call in allowed}
    may = {names.get(number, str(number)) for number, rule in rules.items() if rule.alternatives}
    return Report(
        seccomp=name,
        allowed=tuple(allowed),
        refused=tuple(refused),
        unused=tuple(sorted(may - made)),
        lost=lost,
    )
