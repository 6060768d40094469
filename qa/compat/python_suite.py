"""CPython's own tests (Debian's libpython3.13-testsuite) inside the seccomp profile `python`."""

from __future__ import annotations

import fnmatch
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from clawos.core.parse import Record, from_toml
from qa.compat.sandbox import Sandbox

EXPECTED = Path(__file__).with_name("python.toml")
_PYTHON = "/usr/bin/python3"
_MODULE_S = 600
_NO_TESTS = 4  # regrtest: not a failure, every one was skipped
# What a module's own end is called among the names of its tests: a crash, a time-out, a failed import.
WHOLE = "(the module)"


class Group(Record, frozen=True):
    """Tests that fail for one reason. A pattern matches whole names, as a shell's does."""

    reason: str
    tests: tuple[str, ...]


class Expected(Record, frozen=True):
    """`python.toml`: what may fail, and what is not run."""

    denied: tuple[Group, ...]
    """It needs what the sandbox denies."""
    environment: tuple[Group, ...] = ()
    """It fails outside the sandbox too, on a machine like the tools root."""
    unstable: tuple[Group, ...] = ()
    """It fails now and then on a busy machine, outside too."""
    skipped: tuple[Group, ...] = ()
    """Modules that are not run."""

    def reason(self, test: str) -> str | None:
        """Why this test may fail; None if it may not."""
        for group in (*self.denied, *self.environment, *self.unstable):
            if any(fnmatch.fnmatchcase(test, pattern) for pattern in group.tests):
                return group.reason
        return None

    def names(self, test: str) -> bool:
        """Is this very test expected to fail by its name, and not by a pattern?"""
        return any(test in group.tests for group in (*self.denied, *self.environment))

    def skips(self, module: str) -> bool:
        return any(module in group.tests for group in self.skipped)


@dataclass(frozen=True)
class Outcome:
    module: str
    passed: frozenset[str]
    failed: dict[str, str]
    """Test → the last line of what it says."""


def expected() -> Expected:
    return from_toml(EXPECTED, Expected)


def modules() -> list[str]:
    """Every test module there is."""
    done = subprocess.run(
        [_PYTHON, "-m", "test", "--list-tests"], check=True, capture_output=True, text=True, cwd="/"
    )
    return done.stdout.split()


async def run(sandbox: Sandbox, module: str) -> Outcome:
    """Run one module's tests, each module in a sandbox of its own."""
    ran = await sandbox.run(
        *(_PYTHON, "-m", "test", "--junit-xml=result.xml", f"--timeout={_MODULE_S - 60}", module),
        seccomp="python",
        wall_s=_MODULE_S,
    )
    return outcome(module, ran.home / "result.xml", ran.exit_code, ran.limit, ran.stdout + ran.stderr)


def run_outside(module: str, user: str) -> Outcome:
    """The control: the same tests without a sandbox, as an ordinary user."""
    with tempfile.TemporaryDirectory(prefix="clawos-control-") as made:
        home = Path(made)
        subprocess.run(["chown", user, home], check=True)
        try:
            done = subprocess.run(
                [
                    *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
                    *(_PYTHON, "-m", "test", "--junit-xml=result.xml", f"--timeout={_MODULE_S - 60}", module),
                ],
                cwd=home,
                env={"HOME": str(home), "PATH": "/usr/bin:/usr/sbin", "LANG": "C.UTF-8", "TERM": "dumb"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_MODULE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(module, frozenset(), {f"{module.removeprefix('test.')}.{WHOLE}": "wall"})
        said = (done.stdout + done.stderr).decode(errors="replace")
        return outcome(module, home / "result.xml", done.returncode, None, said)


def outcome(module: str, file: Path, exit_code: int | None, limit: str | None, said: str) -> Outcome:
    """From regrtest's report; what ended without one failed as a whole."""
    passed: set[str] = set()
    failed: dict[str, str] = {}
    try:
        cases = ET.parse(file).iter("testcase")
        for case in cases:
            name = case.get("name", "").removeprefix("test.")
            wrong = [part for part in case if part.tag in ("error", "failure")]
            if wrong:
                failed[name] = _last_line("".join(wrong[0].itertext()))
            elif not list(case.iter("skipped")):
                passed.add(name)
    except (OSError, ET.ParseError):
        pass  # no report: all tests of the module were skipped, or it did not get that far
    if not failed and exit_code not in (0, _NO_TESTS):
        failed[f"{module.removeprefix('test.')}.{WHOLE}"] = (
            limit or f"exit code {exit_code}: {_last_line(said)}"
        )
    return Outcome(module, frozenset(passed), failed)


def unexpected(found: Outcome, wanted: Expected) -> dict[str, str]:
    """What failed though nothing says that it may."""
    return {test: said for test, said in found.failed.items() if wanted.reason(test) is None}


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
