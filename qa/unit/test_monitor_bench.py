"""The arithmetic of the monitor's benchmark, and the generator of events by itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from qa.bench import report
from qa.bench.monitor_guest.__main__ import ACTS, PLACES, row
from qa.load import share


@pytest.fixture(scope="module")
def offer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("share")
    share.make(folder)
    return folder / share.PLACE / "offer"


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """As much of a cgroup as the generator uses."""
    (tmp_path / "cgroup.procs").touch()
    return tmp_path


def run(offer: Path, group: Path, *words: str) -> dict[str, float]:
    done = subprocess.run([offer, group, group, *words], stdout=subprocess.PIPE, check=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def test_a_row_is_the_middle_ratio_of_its_rounds() -> None:
    rounds = [{True: 1.1, False: 1.0}, {True: 2.4, False: 2.0}, {True: 9.0, False: 3.0}]
    assert row(("openat", "inside"), rounds, "us") == {
        "what": "openat",
        "where": "inside",
        "off_us": 2.0,
        "on_us": 2.4,
        "added_percent": 20.0,
        "middle_half_percent": "10.00 to 200.00",
    }


def test_targets_name_what_is_measured() -> None:
    named = [name.split(".")[2:] for name in report.TARGETS if name.startswith("monitor.added_percent.")]
    assert len(named) == 8
    assert {where for where, _ in named} == set(PLACES)
    assert {what for _, what in named} == {*ACTS, "build"} - {"getppid"}


def test_the_generator_keeps_to_its_rate(offer: Path, group: Path) -> None:
    told = run(offer, group, "open", "2000", "1", "2")
    assert 1500 <= told["offered"] / told["seconds"] <= 2200


def test_the_generator_counts_what_the_kernel_counts(offer: Path, group: Path, tmp_path: Path) -> None:
    """Every act is one system call, which strace counts too."""
    counted = tmp_path / "counted"
    words = ("socket", "0", "0.5", "2")
    command = ["strace", "-f", "-c", "-o", str(counted), str(offer), str(group), str(group), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    calls = next(line.split() for line in counted.read_text().splitlines() if line.endswith(" socket"))
    assert int(calls[3]) == json.loads(done.stdout)["offered"] > 100


def test_the_generator_makes_its_processes(offer: Path, group: Path) -> None:
    assert run(offer, group, "processes", "0", "200", "1")["offered"] == 200
