"""What tools usually do: learnt, judged, bounded, and safe from a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from monitor.events import CALL, connect, read, x

from clawos.monitor import state
from clawos.monitor.baseline import (
    CALLS_MAX,
    FEATURES_MAX,
    THRESHOLD,
    TOOLS_MAX,
    Baseline,
    Profile,
    feature_of,
)
from clawos.monitor.event import Event

SOURCE = Path(__file__).parents[2] / "src"


def call(
    baseline: Baseline, name: str, events: list[Event], *, tool: str = "file.read", learn: bool = True
) -> None:
    for event in events:
        event.call = name
        baseline.saw(event)
    baseline.over(name, tool, learn=learn)


def usual() -> list[Event]:
    return [x("cat /home/u/a"), read("/usr/lib/libc.so.6"), read("/home/u/a")]


def learnt(calls: int) -> Baseline:
    made = Baseline()
    for n in range(calls):
        call(made, f"{n:016x}", usual())
    return made


def judged(baseline: Baseline, *events: Event, tool: str = "file.read") -> tuple[float, list[str]] | None:
    for event in events:
        event.call = CALL
        baseline.saw(event)
    return baseline.judge(CALL, tool)


def test_what_was_always_done_is_usual() -> None:
    assert judged(learnt(30), *usual()) is None


def test_what_was_never_done_is_told_with_its_reasons() -> None:
    found = judged(learnt(30), *usual(), x("nc 10.0.0.1 80"), connect("10.0.0.1", 80))
    assert found is not None
    score, reasons = found
    assert THRESHOLD <= score < 1
    assert reasons == ["ran /usr/bin/nc", "connected to 10.0.0.1:80"]


def test_it_is_told_once() -> None:
    baseline = learnt(30)
    assert judged(baseline, x("nc 10.0.0.1 80"), connect("10.0.0.1", 80))
    assert judged(baseline, read("/srv/x/y")) is None
    assert judged(baseline, *(connect(f"10.0.0.{n}", 80) for n in range(9))), "it became much worse"


def test_a_tool_that_is_hardly_known_has_no_habits() -> None:
    assert judged(learnt(4), x("nc 10.0.0.1 80"), connect("10.0.0.1", 80)) is None
    assert judged(learnt(30), x("nc 10.0.0.1 80"), tool="other") is None


def test_the_more_calls_without_it_the_more_it_says() -> None:
    news = (x("nc a 80"), connect("10.0.0.1", 80))
    few, many = judged(learnt(6), *news), judged(learnt(100), *news)
    assert many is not None
    assert many[0] > (few[0] if few else 0)


def test_calls_that_raised_alerts_are_not_learnt_from() -> None:
    baseline = learnt(30)
    for n in range(50):
        call(baseline, f"{n + 100:016x}", [x("nc a 80"), connect("10.0.0.1", 80)], learn=False)
    assert judged(baseline, x("nc a 80"), connect("10.0.0.1", 80))
    call(baseline, f"{1000:016x}", [x("nc a 80"), connect("10.0.0.1", 80)])
    assert judged(baseline, x("nc a 80"), connect("10.0.0.1", 80)) is None


@pytest.mark.parametrize(
    ("event", "feature"),
    [
        (read("/usr/lib/python3/dist-packages/a/b.py"), ("directory", "/usr/lib/python3/dist-packages")),
        (read("/home/u/a"), ("directory", "/home/u")),
        (read("/vmlinuz"), ("directory", "/")),
        (read("/proc/77/maps"), ("directory", "/proc/PID")),
        (read("/proc/meminfo"), ("directory", "/proc")),
        (read("pipe:[5082]"), ("directory", "pipe")),
        (connect("10.0.0.1", 80), ("destination", "10.0.0.1:80")),
        (connect("", 0, 1, path="/run/x"), ("destination", "/run/x")),
    ],
)
def test_what_is_compared(event: Event, feature: tuple[str, str]) -> None:
    found = feature_of(event)
    assert found == feature or found[1] == feature[1].rsplit("/", 1)[0]


def test_it_is_bounded() -> None:
    baseline = Baseline()
    for n in range(TOOLS_MAX + 50):
        call(baseline, f"{n:016x}", usual(), tool=f"tool.{n}")
    assert len(baseline) == TOOLS_MAX
    call(baseline, CALL, [read(f"/d{n}/x") for n in range(5000)])
    call(baseline, CALL, [read(f"/e{n}/x") for n in range(5000)])
    assert len(baseline.written()["file.read"].seen["directory"]) == FEATURES_MAX
    for n in range(10 * CALLS_MAX):
        event = x("id", call=f"{n:016x}")
        baseline.saw(event)
    assert len(baseline._doing) <= CALLS_MAX


def test_it_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "known.json"
    state.write(file, msgspec.json.encode(state.Known(tools=learnt(30).written(), first_seen={"r": ["a"]})))
    known = state.read(file)
    assert known.first_seen == {"r": ["a"]}
    again = Baseline()
    again.read(known.tools)
    assert judged(again, *usual()) is None
    assert judged(again, x("nc a 80"), connect("10.0.0.1", 80))


@pytest.mark.parametrize(
    "text", ["", "{", '{"version": 2}', '{"tools": []}', '{"tools": {"a": {"calls": "x"}}}', "\0" * 4096]
)
def test_a_damaged_file_is_put_aside(tmp_path: Path, text: str) -> None:
    file = tmp_path / "known.json"
    file.write_text(text)
    assert state.read(file) == state.Known()
    assert (tmp_path / "known.damaged").read_text() == text


def test_hostile_numbers_in_the_file_do_no_harm(tmp_path: Path) -> None:
    again = Baseline()
    again.read({"t": Profile(-5, {"program": ["a"] * 10_000, "nonsense": ["b"]})})
    assert again.written()["t"].calls == 0
    assert again.written()["t"].seen == {"program": ["a"]}


_WRITER = """
import sys
from pathlib import Path
from clawos.monitor import state
file, n = Path(sys.argv[1]), 0
print("ready", flush=True)
while True:
    n += 1
    state.write(file, b'{"version":1,"first_seen":{"r":["' + b"x" * (n % 200_000) + b'"]}}')
"""


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "known.json"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    for n in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, file], env=environment, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            try:
                writer.wait(0.02 + n * 0.011)
            except subprocess.TimeoutExpired:
                writer.send_signal(signal.SIGKILL)
        if file.exists():
            assert set(json.loads(file.read_text())) == {"version", "first_seen"}
    assert file.exists()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A file system of one page, in a mount namespace of the test's own."""
    code = f"""
import os, subprocess, sys
sys.path.insert(0, {str(SOURCE)!r})
from pathlib import Path
from clawos.monitor import state
os.unshare(os.CLONE_NEWNS)
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", sys.argv[1]], check=True)
file = Path(sys.argv[1]) / "known.json"
state.write(file, b'{{"version":1}}')
try:
    state.write(file, b"x" * 1_000_000)
except OSError as error:
    print(error.strerror)
print(file.read_text(), sorted(p.name for p in file.parent.iterdir()))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout == "No space left on device\n{\"version\":1} ['known.json']\n", done.stderr
