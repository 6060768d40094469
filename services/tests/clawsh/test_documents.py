"""What is written about clawsh and claw says what the programs say."""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

import pytest

from clawos.claw.main import parser
from clawos.clawsh.exit_codes import MEANING
from clawos.clawsh.options import OPTIONS
from clawos.clawsh.slash import COMMANDS

REPOSITORY = Path(__file__).parents[3]
MAN = REPOSITORY / "docs/man"
COMPLETIONS = REPOSITORY / "services/completions"


def words(page: str) -> str:
    """A manual page without its markup."""
    text = (MAN / page).read_text().replace("\\-", "-")
    return re.sub(r"\\f[A-Z]|^\.[A-Z]+ ", "", text, flags=re.MULTILINE).replace('"', "")


def options_of_clawsh() -> set[str]:
    return {name.split()[0] for names, _ in OPTIONS for name in names.split(", ")}


def commands_of_claw() -> dict[str, list[str]]:
    """Each command of claw with its actions."""
    found: dict[str, list[str]] = {}
    for name, command in _subparsers(parser()).items():
        found[name] = list(_subparsers(command))
    return found


def _subparsers(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next((dict(a.choices) for a in of._actions if isinstance(a, argparse._SubParsersAction)), {})


def test_the_manual_of_clawsh_has_every_option_command_and_exit_code() -> None:
    manual = words("clawsh.1")
    for name in options_of_clawsh() | set(COMMANDS):
        assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", manual), name
    for code, meaning in MEANING.items():
        assert f"{code}\n{meaning}\n" in manual


def test_the_manual_of_clawsh_has_no_other_option() -> None:
    section = words("clawsh.1").split("SH OPTIONS")[-1].split("INSIDE THE SHELL")[0]
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", section)) <= options_of_clawsh()


def test_the_manual_of_claw_has_every_command() -> None:
    manual = words("claw.8")
    for name, actions in commands_of_claw().items():
        for line in [f"{name} {action}" for action in actions] or [name]:
            assert re.search(rf"^{line}\b", manual, re.MULTILINE), line


def test_completion_of_clawsh_offers_its_options() -> None:
    offered = re.search(r"-W '([^']*)'", (COMPLETIONS / "clawsh").read_text())
    assert offered is not None
    assert set(offered[1].split()) == options_of_clawsh()


def _complete(name: str, *typed: str, before: str = "") -> list[str]:
    line = " ".join(f"'{word}'" for word in typed)
    program = (
        f"{before} source {COMPLETIONS / name}; COMP_WORDS=({line}); COMP_CWORD={len(typed) - 1};"
        f'_{name} 2>/dev/null; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.split()


def test_completion_of_claw_offers_its_commands() -> None:
    assert set(_complete("claw", "claw", "")) == set(commands_of_claw())
    assert set(_complete("claw", "claw", "model", "")) == set(commands_of_claw()["model"])
    assert set(_complete("claw", "claw", "sandbox", "")) == set(commands_of_claw()["sandbox"])
    assert _complete("claw", "claw", "doctor", "--j") == ["--json"]


def test_completion_of_claw_knows_which_tool_is_meant() -> None:
    """In place of claw, something that answers as it does."""
    asked = (
        'claw() { [ $# = 2 ] && printf \'    "name": "%s",\n\' file.read unit.list && return;'
        ' printf \'    "properties": {\n      "of-%s": {\n    }\n\' "$2"; }; compopt() { :; };'
    )
    for typed, offered in (
        (["run", ""], ["file.read", "unit.list"]),
        (["run", "a", ""], ["of-a="]),
        (["run", "a", "x=1", "--then", ""], ["file.read", "unit.list"]),
        (["run", "a", "x=1", "--then", "b", ""], ["of-b="]),
        (["run", "a", "--and", "b", "y=2", "--and", "c", "z=3", ""], ["of-c="]),
        (["plan", "a", ""], ["of-a="]),
        (["run", "a", "--t"], ["--then"]),
    ):
        assert _complete("claw", "claw", "sandbox", *typed, before=asked) == offered, typed


@pytest.mark.parametrize("page", ["clawsh.1", "claw.8"])
def test_manual_pages_have_the_usual_sections(page: str) -> None:
    sections = re.findall(r"^\.SH (.*)$", (MAN / page).read_text(), re.MULTILINE)
    assert sections[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    assert "EXIT STATUS" in sections
