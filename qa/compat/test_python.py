"""A cross-section of CPython's own tests under the profile `python`; `make test-full` runs them all."""

from __future__ import annotations

import msgspec
import pytest

from qa.compat import python_suite
from qa.compat.sandbox import Sandbox

# Each a second or two: files, processes, threads, signals, sockets, time, and what runs on top of them.
MODULES = [
    "test_array",
    "test_contextlib",
    "test_csv",
    "test_fcntl",
    "test_file",
    "test_fork1",
    "test_glob",
    "test_json",
    "test_mmap",
    "test_os",
    "test_pathlib",
    "test_pickle",
    "test_poll",
    "test_posix",
    "test_queue",
    "test_selectors",
    "test_shutil",
    "test_sqlite3",
    "test_struct",
    "test_tempfile",
    "test_zipfile",
    "test.test_asyncio.test_unix_events",
    "test.test_multiprocessing_fork.test_threads",
]


@pytest.mark.parametrize("module", MODULES)
async def test_only_what_needs_denied_things_fails(sandbox: Sandbox, module: str) -> None:
    outcome = await python_suite.run(sandbox, module)
    assert len(outcome.passed) > 3
    assert python_suite.unexpected(outcome, python_suite.expected()) == {}


async def test_a_failure_that_nobody_expects_is_told(sandbox: Sandbox) -> None:
    """The control: without python.toml's reasons, the same outcome has unexpected failures."""
    outcome = await python_suite.run(sandbox, "test_posix")
    nothing = msgspec.convert({"denied": []}, python_suite.Expected)
    assert "test_posix.PosixTester.test_chown" in python_suite.unexpected(outcome, nothing)


def test_every_reason_is_a_sentence_and_no_test_has_two() -> None:
    wanted = python_suite.expected()
    groups = (*wanted.denied, *wanted.environment, *wanted.unstable, *wanted.skipped)
    assert all(len(group.reason) > 20 for group in groups)
    named = [test for group in groups for test in group.tests]
    assert len(named) == len(set(named))
