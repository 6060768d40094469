"""The must-fail list is whole, and docs/escape.md says what the suite says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from qa.escape import table
from qa.escape.rows import ROWS

DENIED = json.loads(Path("policies/seccomp/layers/denied.json").read_text())["deny"]


def test_every_denied_call_has_a_row() -> None:
    acts = {row.act for row in ROWS}
    covered = {act.split()[0] for act in acts}
    # kexec and io_uring_setup are refused outside too, by sysctl; test_calls.py has their controls
    assert set(DENIED) - covered == {"kexec_load", "kexec_file_load", "io_uring_setup"}


def test_rows_are_named_once() -> None:
    acts = [(row.group, row.act) for row in ROWS]
    assert len(acts) == len(set(acts))


def test_no_control_is_the_sandboxes_answer() -> None:
    assert [row.act for row in ROWS if row.inside in row.outside] == []


def test_page_is_what_the_suite_says() -> None:
    assert Path("docs/escape.md").read_text() == table.page(), "run 'python -m qa.escape.table'"


def test_page_names_each_test_beside_the_rows() -> None:
    for file, name in re.findall(r"`(test_\w+\.py)::(\w+)`", table.page()):
        assert f"def {name}(" in Path("qa/escape", file).read_text(), name
