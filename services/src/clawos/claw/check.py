"""What a check of `claw doctor` finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How bad it is: `fail` is something to act on now."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One check: the verdict, a sentence, and what to do."""

    check: str
    verdict: Verdict
    sentence: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def ok(check: str, sentence: str) -> Finding:
    return Finding(check, Verdict.OK, sentence)


def warn(check: str, sentence: str, advice: str) -> Finding:
    return Finding(check, Verdict.WARN, sentence, advice)


def fail(check: str, sentence: str, advice: str) -> Finding:
    return Finding(check, Verdict.FAIL, sentence, advice)
