"""The acts: three tables, read and checked."""

from __future__ import annotations

from pathlib import Path

from clawos.core.parse import Record, from_toml

HERE = Path(__file__).parent
SUITES = {"falco": 66, "atomic": 399}
"""Others' suites, and how many acts each has in all."""
CONTROL = "control"


class Act(Record, frozen=True):
    id: str
    does: str
    script: str
    check: str
    techniques: tuple[str, ...] = ()
    before: str = ""
    after: str = ""


class NotRun(Record, frozen=True):
    why: str
    ids: str


class Table(Record, frozen=True):
    act: tuple[Act, ...]
    not_run: tuple[NotRun, ...] = ()

    def reasons(self) -> dict[str, str]:
        """Why an act is not run, by its id."""
        return {one: " ".join(group.why.split()) for group in self.not_run for one in group.ids.split()}


def load(suite: str) -> Table:
    return from_toml(HERE / f"{suite}.toml", Table)
