"""Rules from files: all of them, or none and an error that names the file and the line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from clawos.monitor.detect.language import RuleFile, Scalar
from clawos.monitor.detect.ruleset import Compiled, RuleSet, compile_rule
from clawos.monitor.errors import RulesInvalid

FILE_BYTES_MAX = 1024 * 1024
RULES_MAX = 1024
_HEAD = re.compile(r"^\s*\[\[\s*rule\s*\]\]")
_SYNTAX_LINE = re.compile(r" \(at line (\d+), column \d+\)")
_IN_RULE = re.compile(r" - at `\$\.rule\[(\d+)\]\.?([a-z_]*)")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")


def load(directories: Sequence[Path]) -> RuleSet:
    """All rules of all files; a later directory's file wins over its namesake. Raises RulesInvalid."""
    files: dict[str, Path] = {}
    for directory in directories:
        files |= {file.name: file for file in sorted(directory.glob("*.toml"))}
    parsed = [(file, *_parse(file)) for file in files.values()]
    lists: dict[str, tuple[Scalar, ...]] = {}
    for file, text, rules in parsed:
        for name, values in rules.lists.items():
            if name in lists:
                raise RulesInvalid(file, _line_of_key(text, 0, name), f"there is another list {name!r}")
            lists[name] = values
    compiled: dict[str, tuple[Compiled, Path]] = {}
    for file, text, rules in parsed:
        for number, rule in enumerate(rules.rule):
            line = _line_of_rule(text, number)
            if rule.id in compiled:
                other = compiled[rule.id][1]
                raise RulesInvalid(file, line, f"{other} has a rule {rule.id!r}, too")
            try:
                compiled[rule.id] = compile_rule(rule, lists), file
            except ValueError as error:
                key = re.split(r"[.\[:]", str(error), maxsplit=1)[0]
                at = _line_of_key(text, line, key)
                raise RulesInvalid(file, at, f"rule {rule.id}: {error}") from None
    if len(compiled) > RULES_MAX:
        raise RulesInvalid(directories[-1], None, f"more than {RULES_MAX} rules")
    return RuleSet([one for one, _ in compiled.values()])


def _parse(file: Path) -> tuple[str, RuleFile]:
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise RulesInvalid(file, None, f"is larger than {FILE_BYTES_MAX} bytes")
        text = file.read_text()
        return text, msgspec.convert(tomllib.loads(text), type=RuleFile)
    except OSError as error:
        raise RulesInvalid(file, None, error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise RulesInvalid(file, None, "is no text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        found = _SYNTAX_LINE.search(str(error))
        what = _SYNTAX_LINE.sub("", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise RulesInvalid(file, line, what) from None
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        found = _IN_RULE.search(str(error))
        start = _line_of_rule(text, int(found[1])) if found else 0
        unknown = _UNKNOWN.search(str(error))
        # In a table on one line it is not at the beginning of one: then that of the table.
        keys = [unknown[1]] if unknown else []
        lines = [_line_of_key(text, start, key) for key in (*keys, found[2] if found else "")]
        line = next((one for one in lines if one != max(start, 1)), max(start, 1))
        raise RulesInvalid(file, line, str(error)) from None


def _line_of_rule(text: str, number: int) -> int:
    heads = [at for at, line in enumerate(text.splitlines(), 1) if _HEAD.match(line)]
    return heads[number] if number < len(heads) else 1


def _line_of_key(text: str, start: int, key: str) -> int:
    """Of a key in the rule that begins at line `start`; that line where it is not found."""
    wanted = re.compile(rf"\s*(\[+\s*rule\s*\.\s*)?{re.escape(key)}\b") if key else None
    for at, line in enumerate(text.splitlines(), 1):
        if at <= start:
            continue
        if start and _HEAD.match(line):
            break
        if wanted and wanted.match(line):
            return at
    return max(start, 1)
