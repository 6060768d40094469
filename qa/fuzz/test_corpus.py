"""Every plan that the fuzzer ever kept, once more: none may break the parser of the launcher."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PLANS = sorted((HERE / "corpus" / "plan").iterdir())


def make(folder: Path, *arguments: str) -> Path:
    subprocess.run(["make", "-s", "-C", HERE, f"OUT={folder}", *arguments], check=True)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("fuzz"))


def once(harness: Path, artifacts: Path) -> subprocess.CompletedProcess[str]:
    """Each plan of the corpus, one time."""
    command = [str(harness), f"-artifact_prefix={artifacts}/", *map(str, PLANS)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_no_plan_of_the_corpus_breaks_the_parser(built: Path, tmp_path: Path) -> None:
    ran = once(built / "fuzz-plan", tmp_path)
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert ran.stderr.count("Executed ") == len(PLANS)


def test_a_parser_that_reads_past_the_end_is_caught(tmp_path: Path) -> None:
    """The positive control: the sanitizers are at work, and the corpus holds plans that are accepted."""
    ran = once(make(tmp_path, "CONTROL=1", f"{tmp_path}/fuzz-plan") / "fuzz-plan", tmp_path)
    assert ran.returncode != 0
    assert "heap-buffer-overflow" in ran.stderr


def test_a_short_run_finds_what_it_knows_and_nothing_bad(built: Path, tmp_path: Path) -> None:
    """The mutator, too, breaks nothing: two seconds of what `make fuzz` does for as long as one likes."""
    new = tmp_path / "new"
    new.mkdir()
    command = [str(built / "fuzz-plan"), "-max_total_time=2", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    command += [str(new), str(HERE / "corpus" / "plan")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr[-4000:]


def test_the_corpus_has_both_kinds_and_stays_small(built: Path) -> None:
    accepted = 0
    for plan in PLANS:
        with plan.open("rb") as file:
            status = subprocess.run([built / "print-plan"], stdin=file, capture_output=True).returncode
        assert status in (0, 1), plan
        accepted += status == 0
    assert 0 < accepted < len(PLANS)
    assert sum(plan.stat().st_size for plan in PLANS) < 256 * 1024
