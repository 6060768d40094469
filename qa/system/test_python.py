"""Files of Python in the image: copies of the zygote, with limits, and what becomes of it."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator

import pytest

from qa.conftest import Call, sandboxes_by, tool_calls
from qa.system.test_sandbox import assert_nothing_is_left
from qa.vm.machine import Channel, Output

pytestmark = pytest.mark.usefixtures("unwatched")

Run = Callable[..., Output]

COPY = "import gc; gc.get_freeze_count() > 0"
LOOK = """import os
for line in open('/proc/self/status'):
    if line.startswith(('Uid', 'Gid', 'Groups', 'Cap', 'NoNewPrivs', 'Seccomp')): print(line, end='')
for name in ('attr/current', 'limits', 'oom_score_adj', 'mounts'): print(open('/proc/self/' + name).read())
print(sorted(os.listdir('/proc/self/fd'))[:3], os.getcwd(), sorted(os.environ.items()))"""
ZYGOTE = "pgrep -xu clawos-isolator claw-python"
MANIFEST = """name = "test.python"
description = "Say what it is given."
class = "safe"
quota = "small"
runtime = "python"
seccomp = "python"
argv = ["/etc/clawos/tools.d/test.python.py", "{text}"]

[arguments]
type = "object"
additionalProperties = false
required = ["text"]

[arguments.properties.text]
type = "string"
description = "what to say"
maxLength = 64
"""


@pytest.fixture(scope="module", autouse=True)
def _by_launcher(root: Run) -> Iterator[None]:
    """With a zygote that stays as long as these tests take."""
    with sandboxes_by("launcher", root, "zygote_s = 86400", "zygote_idle_s = 86400"):
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left(root: Run) -> Iterator[None]:
    yield
    assert_nothing_is_left(root)


def copied(call: Call, deadline_s: float = 60) -> None:
    """Until files of Python start as copies."""
    deadline = time.monotonic() + deadline_s
    while (ran := call("python.run", code=COPY)).stdout != "True\n":
        assert ran.stdout == "False\n", ran
        assert time.monotonic() < deadline
        time.sleep(1)


def processes(root: Run) -> list[str]:
    return root(ZYGOTE).text.split()


def test_the_first_call_makes_the_zygote_and_the_next_are_its_copies(root: Run, call: Call) -> None:
    root("systemctl restart clawos-isolator")
    assert processes(root) == []
    assert call("math.eval", expression="6 * 7").stdout == "42\n"
    copied(call)
    assert len(processes(root)) == 3, "launcher, spawner, filler"
    assert call("math.eval", expression="6 * 7").stdout == "42\n"


def test_a_copy_is_quicker_and_smaller(channel: Channel, call: Call) -> None:
    tool = "/usr/lib/clawos/tools/calculate"
    cold = tool_calls(channel, runtime="native", argv=["/usr/bin/python3", "-IS", tool, "6 * 7"])
    copied(call)
    times = {
        name: min(way("math.eval", expression="6 * 7").wall_s for _ in range(5))
        for name, way in {"copy": call, "cold": cold}.items()
    }
    assert times["copy"] < 0.6 * times["cold"], times


def test_a_copy_has_every_fence_of_a_new_python(channel: Channel, call: Call) -> None:
    copied(call)
    words = ["/usr/bin/python3", "-IS", "/usr/lib/clawos/tools/run-python", LOOK]
    cold = tool_calls(channel, runtime="native", argv=words)
    first, second = cold("python.run", code=LOOK), call("python.run", code=LOOK)
    assert first.outcome == (0, ""), first
    assert "clawos-isolator (enforce)" in first.stdout
    assert second.stdout == first.stdout


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("x = bytearray(1 << 30)", "memory"),
        ("import os\nwhile True: os.fork()", "pids"),
        ("import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(600)", "wall"),
        ("while True: print('x' * 4096)", "output"),
    ],
)
def test_limits_end_the_copy_and_not_the_zygote(
    root: Run, channel: Channel, call: Call, code: str, limit: str
) -> None:
    copied(call)
    before = processes(root)
    ran = tool_calls(channel, wall_s=20)("python.run", code=code)
    assert ran.limit == limit, ran
    assert call("python.run", code=COPY).stdout == "True\n"
    assert processes(root) == before


def test_killed_it_is_replaced(root: Run, call: Call) -> None:
    copied(call)
    before = processes(root)
    assert root(f"kill -KILL {before[0]}").status == 0
    assert call("math.eval", expression="6 * 7").stdout == "42\n"
    assert "the zygote ended by itself" in root("journalctl -b -q -u clawos-isolator -n 20").text
    copied(call)
    assert not set(before) & set(processes(root))


def test_one_that_cannot_start_is_told_and_calls_go_on(root: Run, call: Call) -> None:
    with sandboxes_by("launcher", root, 'zygote = "/usr/lib/clawos/missing.so"'):
        for _ in range(3):
            assert call("math.eval", expression="6 * 7").stdout == "42\n"
            time.sleep(2)
        told = root("journalctl -b -q -u clawos-isolator -n 40").text
        assert told.count("no zygote, Python starts anew in each call") == 1
        assert processes(root) == []


def test_an_administrators_file_is_a_tool(root: Run, call: Call) -> None:
    script = "import os, sys; print(sys.argv[1], os.listdir('/etc/clawos/tools.d'))"
    try:
        for name, text in (("toml", MANIFEST), ("py", script)):
            root(f"printf %s {shlex.quote(text)} >/etc/clawos/tools.d/test.python.{name}")
        assert json.loads(root("claw tools --json test.python").text)["class"] == "safe"
        copied(call)
        ran = call("test.python", text="hello")
        assert ran.outcome == (0, ""), ran
        assert ran.stdout == "hello ['test.python.py']\n"
    finally:
        root("rm -f /etc/clawos/tools.d/test.python.*")
