"""Rules, compiled and sorted by what could hit them: an event that no rule asks for costs one look-up.

Within a kind they are sorted once more: of exec by the program's name, of files by the first directory of
the path. What a rule asks of these is an anchor; a rule without one is asked for each event of its kinds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clawos.monitor.detect.conditions import Test, compile_pattern
from clawos.monitor.detect.fields import OWN, Getter, of_kinds
from clawos.monitor.detect.language import SEVERITIES, Condition, Pattern, Rule, Value, texts
from clawos.monitor.detect.lists import Lists, resolved
from clawos.monitor.detect.matchers import Distinct, First, Hit, Matcher, Plain, Rate, Steps, key_of
from clawos.monitor.detect.text import printable
from clawos.monitor.event import Event


@dataclass(frozen=True, eq=False)
class Compiled:
    """A rule as it is asked."""

    rule: Rule
    patterns: tuple[Pattern, ...]
    tests: tuple[Test, ...]
    matcher: Matcher
    message: Callable[[Event], str]

    @property
    def rank(self) -> int:
        return SEVERITIES.index(self.rule.severity)


ANCHORED = frozenset({"exec", "open", "create", "unlink", "chmod"})
"""Kinds that are sorted further. Of rename and link, two paths could be meant; they are rare."""
WRITE = "write"
"""In the place of `open` for files that are opened to be written: by far most are not."""

Table = tuple[tuple[Test, Compiled, int], ...]


@dataclass(frozen=True, eq=False)
class Dispatch:
    """What is asked of events of one kind: all three, as far as they have something for it."""

    always: Table
    by_head: Mapping[str, Table]
    """By the first directory of the path."""
    by_name: Mapping[str, Table]
    """By the last part of the path; of exec by the program's name, too."""

    def of_path(self, path: str) -> Table:
        """Of what has a path."""
        found = self.always
        head = self.by_head.get(path[: path.find("/", 1) + 1])
        if head is not None:
            found = (*head, *found)
        name = self.by_name.get(path[path.rfind("/") + 1 :])
        return found if name is None else (*name, *found)

    def of_exec(self, path: str, comm: str) -> Table:
        """Of a program that may be a script, or was started by a link: then it has two names."""
        program = path[path.rfind("/") + 1 :]
        found = self.by_name.get(program)
        if not program.startswith(comm) and (other := self.by_name.get(comm)) is not None:
            found = other if found is None else tuple(dict.fromkeys((*found, *other)))
        return self.always if found is None else (*found, *self.always)


class RuleSet:
    """All rules that are in force."""

    def __init__(self, rules: Sequence[Compiled]) -> None:
        self.rules = rules
        self.tables: dict[str, Dispatch] = {}
        """By kind, and by WRITE for the opening of files that are written."""
        for kind in (*OWN, WRITE):
            if dispatch := _dispatch(kind, rules):
                self.tables[kind] = dispatch

    def candidates(self, event: Event) -> Table:
        """What could hit; the engine does the same in its own loop."""
        dispatch = self.tables.get(WRITE if event.own.get("write") else event.kind)
        if dispatch is None:
            return ()
        if event.kind not in ANCHORED:
            return dispatch.always
        if event.kind == "exec":
            return dispatch.of_exec(event.own["path"], event.comm)
        return dispatch.of_path(event.own["path"])

    def hits(self, event: Event) -> Iterable[tuple[Compiled, Hit]]:
        for test, compiled, step in self.candidates(event):
            if test(event) and (hit := compiled.matcher.take(step, event)):
                yield compiled, hit

    def first_seen(self) -> dict[str, list[str]]:
        """What the rules with `first` have seen, by rule."""
        return {c.rule.id: list(c.matcher.seen) for c in self.rules if isinstance(c.matcher, First)}

    def remember(self, seen: Mapping[str, Sequence[str]]) -> None:
        for compiled in self.rules:
            if isinstance(compiled.matcher, First):
                compiled.matcher.seen.update(dict.fromkeys(seen.get(compiled.rule.id, ())))


def name_of(path: str) -> str:
    return path[path.rfind("/") + 1 :]


def head_of(path: str) -> str:
    return path[: path.find("/", 1) + 1]


def compile_rule(rule: Rule, lists: Lists) -> Compiled:
    """Raises ValueError with the path of what is wrong in the rule."""
    patterns = []
    tests = []
    for number, written in enumerate(rule.steps or (rule,)):
        try:
            pattern = resolved(written, lists)
            patterns.append(pattern)
            tests.append(compile_pattern(pattern))
        except ValueError as error:
            raise ValueError(f"steps[{number}].{error}" if rule.steps else str(error)) from None
    return Compiled(
        rule, tuple(patterns), tuple(tests), _matcher(rule, patterns), _message(rule, patterns[-1])
    )


def _getters(names: Sequence[str], pattern: Pattern, where: str) -> list[Getter]:
    fields = of_kinds(pattern.kinds)
    for name in names:
        if name not in fields:
            raise ValueError(f"{where}: events of these kinds have no field {name!r}")
    return [fields[name][1] for name in names]


def _matcher(rule: Rule, patterns: Sequence[Pattern]) -> Matcher:
    if rule.steps:
        assert rule.within_s is not None
        return Steps([key_of(_getters(rule.by, one, "by")) for one in patterns], rule.within_s)
    if rule.first:
        return First(key_of(_getters(rule.first, patterns[0], "first")))
    if rule.count is None:
        return Plain()
    assert rule.within_s is not None
    key = key_of(_getters(rule.by, patterns[0], "by"))
    if rule.distinct is None:
        return Rate(key, rule.count, rule.within_s)
    (value,) = _getters((rule.distinct,), patterns[0], "distinct")
    return Distinct(key, value, rule.count, rule.within_s)


def _message(rule: Rule, pattern: Pattern) -> Callable[[Event], str]:
    """The sentence, its fields filled in from the event that the rule hit with."""
    pieces = re.split(r"\{([a-z_]+)\}", rule.message)
    if any("{" in piece or "}" in piece for piece in pieces[::2]):
        raise ValueError("message: a brace that is no {field}")
    fields = of_kinds(pattern.kinds)
    if unknown := [name for name in pieces[1::2] if name not in fields]:
        raise ValueError(f"message: events of these kinds have no field {unknown[0]!r}")
    getters = [fields[name][1] for name in pieces[1::2]]

    def message(event: Event) -> str:
        values = [printable(_words(getter(event))) for getter in getters]
        return "".join(a + b for a, b in zip(pieces[::2], [*values, ""], strict=True))

    return message


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "?" if value is None or value == "" else str(value)


@dataclass(frozen=True, slots=True)
class _Anchors:
    """Where a pattern's events must be looked for: all of them have one of these."""

    heads: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()


def _dispatch(kind: str, rules: Sequence[Compiled]) -> Dispatch | None:
    real = "open" if kind == WRITE else kind
    entries = [
        (_anchors(kind, pattern), (test, compiled, step))
        for compiled in rules
        for step, (pattern, test) in enumerate(zip(compiled.patterns, compiled.tests, strict=True))
        if real in pattern.kinds and _is_asked(kind, pattern)
    ]
    if not entries:
        return None
    # Later steps first: one event that is two steps of a rule is not both at once.
    entries.sort(key=lambda entry: -entry[1][2])
    heads = frozenset[str]().union(*(found.heads for found, _ in entries if found))
    names = frozenset[str]().union(*(found.names for found, _ in entries if found))
    return Dispatch(
        tuple(e for found, e in entries if found is None),
        {head: tuple(e for found, e in entries if found and head in found.heads) for head in heads},
        {name: tuple(e for found, e in entries if found and name in found.names) for name in names},
    )


def _is_asked(kind: str, pattern: Pattern) -> bool:
    """Of opening, whether the pattern could mean one that writes (WRITE), or one that reads."""
    if kind == WRITE:
        return pattern.match.get("write") is not False
    writes_only = (
        pattern.match.get("write") is True or "changed" in pattern.match or "cleared" in pattern.match
    )
    if pattern.any and all("changed" in table or "cleared" in table for table in pattern.any):
        writes_only = True
    return kind != "open" or not writes_only


def _anchors(kind: str, pattern: Pattern) -> _Anchors | None:
    """None where any event of the kind could be meant."""
    kind = "open" if kind == WRITE else kind
    if kind not in ANCHORED:
        return None
    found = _anchors_of(kind, pattern.match)
    if found is None and pattern.any:
        several = [_anchors_of(kind, table) for table in pattern.any]
        known = [one for one in several if one is not None]
        if len(known) == len(several):
            return _Anchors(
                frozenset[str]().union(*(one.heads for one in known)),
                frozenset[str]().union(*(one.names for one in known)),
            )
    return found


def _anchors_of(kind: str, table: Mapping[str, Value]) -> _Anchors | None:
    if kind == "exec" and "program" in table:
        exact = _exact(table["program"])
        return None if exact is None else _Anchors(names=exact)
    value = next((table[name] for name in ("path", "changed", "cleared") if name in table), None)
    if value is None:
        return None
    if (exact := _exact(value)) is not None:
        if kind == "exec":
            return _Anchors(names=frozenset(map(name_of, exact)))
        return _Anchors(heads=frozenset(map(head_of, exact)))
    if kind == "exec" or not isinstance(value, Condition):
        return None
    if (beginnings := texts(value.prefix)) or (beginnings := tuple(map(_literal, texts(value.glob)))):
        # A prefix that is not a whole directory may be the beginning of several.
        heads = frozenset(map(head_of, beginnings))
        return None if "" in heads else _Anchors(heads=heads)
    ends = texts(value.suffix)
    if ends and all("/" in end for end in ends):
        return _Anchors(names=frozenset(map(name_of, ends)))
    return None


def _exact(value: Value) -> frozenset[str] | None:
    """The texts that this asks for, where it asks for nothing else."""
    if isinstance(value, str):
        return frozenset({value})
    if isinstance(value, tuple):
        values: tuple[Any, ...] = value
    elif isinstance(value, Condition) and value.one_of is not None:
        values = value.one_of
    elif isinstance(value, Condition) and isinstance(value.equal, str):
        values = (value.equal,)
    else:
        return None
    return frozenset(one for one in values if isinstance(one, str))


def _literal(glob: str) -> str:
    return re.split(r"[*?]", glob, maxsplit=1)[0]
