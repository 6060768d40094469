"""What a caller of the monitor can act on."""

from __future__ import annotations

from pathlib import Path

from clawos.core.errors import ClawError


class RulesInvalid(ClawError):
    """A file of rules cannot be used. The rules that were in force stay."""

    name = "RulesInvalid"

    def __init__(self, file: Path, line: int | None, what: str) -> None:
        where = f"{file}, line {line}" if line else str(file)
        super().__init__(
            f"{where}: {what}",
            "correct the file; the rules that were in force still are",
            file=str(file),
            line=line,
        )


class FilterInvalid(ClawError):
    """What was asked for is not a filter; the message names the path of what is wrong."""

    name = "FilterInvalid"


class NoSuchCall(ClawError):
    """No such call is known, or it is another user's; the caller is not told which."""

    name = "NoSuchCall"


class KernelSideMissing(ClawError):
    """The programs and maps of the kernel side are not there."""

    name = "KernelSideMissing"
